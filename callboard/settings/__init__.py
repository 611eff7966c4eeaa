"""Settings: the one place where Callboard reads the environment.

Flat names, `CALLBOARD_<GROUP>_<FIELD>`. A secret may come from a file instead: `CALLBOARD_KEY_FILE`.
An unknown name stops the start with the nearest known one, and so does a bad value, with what it got
and what it expected; all faults are told at once. `python -m callboard.settings` prints the page
`docs/settings.md`.

Every entry file loads its settings once and passes them on.
"""

from callboard.settings.environment import child_environment, colours_wanted, kubernetes_address, load
from callboard.settings.model import PREFIX, Settings, without_password
from callboard.settings.page import SettingDoc, describe, page

__all__ = [
    "PREFIX",
    "SettingDoc",
    "Settings",
    "child_environment",
    "colours_wanted",
    "describe",
    "kubernetes_address",
    "load",
    "page",
    "without_password",
]
