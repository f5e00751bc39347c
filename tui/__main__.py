"""`python -m inferd.tui`: what `inferd top` runs."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
