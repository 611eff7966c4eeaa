"""What the CLI tests import from the module that Dramatiq leaves out of its source distribution."""

from typing import TypeVar

T = TypeVar("T")


def skip_on_windows(test: T) -> T:
    """We do not run there."""
    return test
