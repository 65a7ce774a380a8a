#!/usr/bin/env python3
"""`mmapipc receive`, without installing anything."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmapipc.cli import main  # noqa: E402

sys.exit(main(["receive", *sys.argv[1:]]))
