"""`python -m mmapipc`, and the entry point of a zipapp."""

import sys

from . import cli


def main() -> None:
    """Run the command line and exit: what zipapp calls it with ignores a returned code."""
    sys.exit(cli.main())


if __name__ == "__main__":
    main()
