"""`python -m callboard_worker`."""

import sys

from callboard_worker.main import main

if __name__ == "__main__":
    sys.exit(main())
