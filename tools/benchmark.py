"""``segtrain benchmark`` as a script; see ``--help``."""

import sys

from segtrain.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("benchmark"))
