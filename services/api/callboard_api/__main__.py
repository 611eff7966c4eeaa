"""`python -m callboard_api`."""

import sys

from callboard_api.main import main

if __name__ == "__main__":
    sys.exit(main())
