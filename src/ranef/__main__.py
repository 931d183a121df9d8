"""`python -m ranef` is the command line."""

import sys

from ranef.cli import main

if __name__ == "__main__":
    sys.exit(main())
