"""`python -m callboard_scheduler`."""

from __future__ import annotations

import sys

from callboard_scheduler.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
