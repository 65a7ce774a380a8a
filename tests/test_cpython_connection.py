"""CPython's own tests of `multiprocessing.connection`, run over `mmapipc.connection`.

The adapter gives them our module and our `Pipe`, real processes by each way that
this system has of starting them, and for the one question that a test asks of it
a `fileno()`.  What makes no sense for us stands in a table with the reason.
"""

import fnmatch
import importlib
import multiprocessing
import os
import types
import unittest
from unittest import mock

from mmapipc import connection

from .helpers import ChannelTest

try:
    _theirs = importlib.import_module("test._test_multiprocessing")
    MISSING = ""
except (ImportError, unittest.SkipTest) as error:
    _theirs = None
    MISSING = f"this interpreter lacks CPython's tests: {error}"

LEFT_OUT = {
    "passes a descriptor on through the socket that a connection is": """
        Connection.test_fd_transfer Connection.test_large_fd_transfer Connection.test_missing_fd_transfer""",
    "two processes read from one end, which belongs to the first that uses it": "Poll.test_boundaries",
    "an address is a name, and no socket": "Listener.test_abstract_socket",
    "there is no authkey": "Listener.test_empty_authkey",  # since 3.13
}
_matched = set()


def _base(name):
    return getattr(_theirs, name) if _theirs else object


class Theirs(ChannelTest):
    """The base of what runs a class of CPython's tests."""

    TYPE = "processes"
    connection = types.SimpleNamespace(
        families=[None], **{name: getattr(connection, name) for name in connection.__all__}
    )
    Pipe = staticmethod(connection.Pipe)

    def __init_subclass__(cls):
        names = [f"{cls.__name__}.{name}" for name in dir(cls) if name.startswith("test")]
        kind = cls.__name__.split("By")[0]
        for pattern in " ".join(LEFT_OUT.values()).split():
            for name in fnmatch.filter([f"{kind}.{each.split('.')[1]}" for each in names], pattern):
                _matched.add(pattern)
                setattr(cls, name.split(".")[1], None)  # the loader of tests passes it over

    def Process(self, *arguments, **options):
        return multiprocessing.get_context(self.method).Process(*arguments, **options)

    def setUp(self):
        ChannelTest.setUp(self)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        numbered = mock.patch.object(connection.Connection, "fileno", lambda end: 0)
        numbered.start()
        self.addCleanup(numbered.stop)
        if self.method == "forkserver":
            # Each test has a directory of its own for the memory, and the server that of when it started.
            self.addCleanup(importlib.import_module("multiprocessing.forkserver")._forkserver._stop)


for _method in multiprocessing.get_all_start_methods():
    for _name in ("Connection", "Poll", "Listener", "ListenerClient"):
        _class = f"{_name}By{_method.capitalize()}"
        globals()[_class] = type(
            _class,
            (Theirs, _base(f"_Test{_name}")),
            {"method": _method, "__module__": __name__, "__doc__": f"Processes are started by {_method}."},
        )
del _class


class Complete(unittest.TestCase):
    def test_cpython_has_its_tests(self):
        if MISSING and "MMAPIPC_NEEDS_TEST_PACKAGE" not in os.environ:  # as .ci/run says
            self.skipTest(MISSING)
        self.assertEqual(MISSING, "")

    @unittest.skipIf(MISSING, MISSING)
    def test_what_is_left_out_exists(self):
        self.assertLessEqual(
            set(" ".join(LEFT_OUT.values()).split()) - _matched, {"Listener.test_empty_authkey"}
        )

    @unittest.skipIf(MISSING, MISSING)
    def test_most_are_run(self):
        loader = unittest.TestLoader()
        run = sum(len(loader.getTestCaseNames(case)) for case in Theirs.__subclasses__())
        self.assertGreaterEqual(run, 13 * len(multiprocessing.get_all_start_methods()))


if __name__ == "__main__":
    unittest.main()
