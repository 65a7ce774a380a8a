"""What other processes say of the tests that they ran is what would have been said here."""

import io
import os
import unittest

from . import spread
from .helpers import WINDOWS, ChannelTest, apart


class Samples(unittest.TestCase):
    """Not run for their own sake."""

    def test_success(self):
        pass

    def test_failure(self):
        self.assertEqual(1, 2, "one is not two")

    def test_error(self):
        raise ValueError("of no value")

    def test_skip(self):
        self.skipTest("not now")

    @unittest.expectedFailure
    def test_expected_failure(self):
        self.fail()

    @unittest.expectedFailure
    def test_unexpected_success(self):
        pass

    def test_subtests(self):
        for number in range(3):
            with self.subTest("number", number=number):
                self.assertEqual(number, 1)


@apart
class Apart(Samples):
    pass


class Unprepared(Samples):
    @classmethod
    def setUpClass(cls):
        raise OSError("nothing works")


class Deadly(unittest.TestCase):
    def test_exit(self):
        os._exit(3)


def load_tests(loader, tests, pattern):
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, (Spreading, Children)))


@unittest.skipUnless(WINDOWS, "Windows only: Wine cannot load some processes when it has much to do")
class Children(ChannelTest):
    def test_one_that_could_not_be_loaded_is_started_again(self):
        code = (
            "import ctypes, os\n"
            "starts = len(os.listdir(sys.argv[2]))\n"
            "os.mkdir(os.path.join(sys.argv[2], str(starts)))\n"
            "if starts < int(sys.argv[3]): ctypes.windll.kernel32.ExitProcess(0xC0000142)\n"
            "say(sys.stdin.readline().strip())\n"
            "say(sys.stdin.read())\n"
        )
        for failures in (0, 1, 2):
            with self.subTest(failures=failures):
                folder = self.folder / str(failures)
                folder.mkdir()
                child = self.python(code, str(folder), str(failures), stdin=-1)
                child.feed(b"first\n")
                self.assertEqual(child.line(), "first")
                child.feed(b"rest")
                child.end_input()
                self.assertEqual(child.end(), (0, b"rest\r\n", ""))
        folder = self.folder / "never"
        folder.mkdir()
        child = self.python(code, str(folder), "9")
        self.assertEqual(child.end(), (0xC0000142, b"", ""))


def suite(*cases):
    return unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))


class Spreading(unittest.TestCase):
    def run_by(self, kind, *cases, **options):
        """The result, and what is printed of it."""
        stream = io.StringIO()
        result = unittest.TextTestRunner(stream, verbosity=2, **options).run(kind(suite(*cases)))
        return result, stream.getvalue()

    def test_the_result_is_the_same(self):
        results = []
        for kind in (unittest.TestSuite, spread.Spread):
            result, printed = self.run_by(kind, Samples, Unprepared)
            found = {
                what: sorted(str(test) for test, *_ in map(tuple, getattr(result, what)))
                for what in ("failures", "errors", "skipped", "expectedFailures")
            }
            found["unexpectedSuccesses"] = [str(test) for test in result.unexpectedSuccesses]
            for text in ("one is not two", "of no value", "'not now'", "nothing works"):
                self.assertIn(text, printed)
            results.append((found, result.testsRun))
        self.assertEqual(*results)
        self.assertEqual(len(results[0][0]["failures"]), 3)

    def test_it_stops_at_the_first_failure(self):
        result, _ = self.run_by(spread.Spread, Samples, failfast=True)
        self.assertEqual(len(result.failures + result.errors), 1)

    def test_those_that_are_alone_run_here(self):
        class Alone(unittest.TestCase):
            alone = True

            def test_where_it_runs(self):
                processes.append(os.getpid())

        processes = []
        result, _ = self.run_by(spread.Spread, Alone)
        self.assertEqual((processes, result.testsRun), ([os.getpid()], 1))

    def test_those_that_are_apart_run_too(self):
        result, _ = self.run_by(spread.Spread, Apart)
        self.assertEqual((result.testsRun, len(result.failures)), (7, 3))

    @unittest.skipIf(WINDOWS, "not under Wine, which then cannot start the next process now and then")
    def test_a_process_that_dies_is_no_success(self):
        with self.assertRaises(spread.BrokenProcessPool):
            self.run_by(spread.Spread, Deadly)
