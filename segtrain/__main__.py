"""``python -m segtrain COMMAND ...``, the same as the command ``segtrain``."""

import sys

from segtrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
