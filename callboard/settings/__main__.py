"""Print `docs/settings.md`."""

import sys

from callboard.settings.page import page

sys.stdout.write(page())
