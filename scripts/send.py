#!/usr/bin/env python3
"""`mmapipc send`, without installing anything."""

import os.path
import signal
import sys

# Ctrl-C ends an import without a traceback; `main` then has a word to say.
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from mmapipc._cli.main import main  # noqa: E402

sys.exit(main(["send", *sys.argv[1:]]))
