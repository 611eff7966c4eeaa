"""The doctor: checks the invariants of the store, and mends what broke them.

Nothing in normal work breaks them; a restored backup, a failover that lost writes, a hand in the keys or
a bug may. It works on a live platform: a step looks at up to 100 tasks in one script, so nothing moves
meanwhile.
"""

from callboard.doctor.checkup import Checkup
from callboard.doctor.fault import FAULTS, Fault

__all__ = ["FAULTS", "Checkup", "Fault"]
