"""`python -m mmapipc`, and the entry point of a zipapp."""

import sys

from ._cli.main import main as run


def main() -> None:
    """Run the command line and exit: what zipapp calls it with ignores a returned code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
