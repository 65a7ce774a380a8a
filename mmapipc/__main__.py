"""`python -m mmapipc`, `mmapipc` when installed, and the entry point of a zipapp."""

import signal
import sys

# Ctrl-C ends an import without a traceback; `main` then has a word to say.
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from ._cli.main import main as run  # noqa: E402


def main() -> None:
    """Run the command line and exit: what zipapp calls it with ignores a returned code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
