"""Records of tasks: their states, ids, wire form, and the store that reads them."""

from callboard.records.ids import foreign_id, new_id, queue_of
from callboard.records.layout import UndecodableRecord
from callboard.records.record import Attempt, Interruption, TaskRecord
from callboard.records.state import State

__all__ = [
    "Attempt",
    "Interruption",
    "State",
    "TaskRecord",
    "UndecodableRecord",
    "foreign_id",
    "new_id",
    "queue_of",
]
