"""The read door: tasks, their logs, queues and workers. Nothing here changes anything."""

from callboard.inspector.queues import QueueView, queue, queue_names, queues
from callboard.inspector.scaling import Scaling
from callboard.inspector.tasks import Page, TaskFilter, find, get
from callboard.inspector.workers import WorkerView, workers
from callboard.records.log import LogLine, LogPage, logs

__all__ = [
    "LogLine",
    "LogPage",
    "Page",
    "QueueView",
    "Scaling",
    "TaskFilter",
    "WorkerView",
    "find",
    "get",
    "logs",
    "queue",
    "queue_names",
    "queues",
    "workers",
]
