"""The tests of mmapipc; all of them at once run in several processes, see `spread`."""

import os
import unittest


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    from .spread import JOBS, Spread

    tests.addTests(loader.discover(os.path.dirname(__file__), pattern or "test*.py"))
    return Spread(tests) if JOBS > 1 else tests
