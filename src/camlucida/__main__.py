"""``python -m camlucida``: the command line."""

import sys

from camlucida.cli import main

if __name__ == "__main__":
    sys.exit(main())
