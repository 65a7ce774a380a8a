"""CPython's own tests for files, run against the ends of channels and the files of `mmapipc.open`.

What such a test writes is taken by a Receiver in a thread of its own, and what
it reads comes from a Sender.  The tests that make no sense for a stream stand in
a table, with the reason; all others are run.
"""

import contextlib
import fnmatch
import importlib
import io
import itertools
import os
import pkgutil
import re
import select
import signal
import sys
import threading
import time
import unittest
import warnings
import weakref
from types import SimpleNamespace
from unittest import mock

import mmapipc
from mmapipc import files

from .helpers import DEADLINE, Background, ChannelTest, eventually

try:
    from test import test_io

    MISSING = ""
except ImportError as error:
    MISSING = f"this interpreter lacks CPython's tests: {error}"

# The tests that are not run, and why; `<3.12` or `>=3.13` says that only these versions have them.
LEFT_OUT = {
    "an end neither seeks nor truncates, and is for one direction": """
        *Newlines.test_seek Files.test_*_file_io Files.test_append_mode_tell Files.test_array_writes
        Files.test_large_file_ops Files.test_optional_abilities Files.test_raw_bytes_io Misc.test_create_*
        OtherFile.testTruncateOnWindows RawAutoFile.testMethods RawAutoFile.testSeekTell
        RawAutoFile.test_none_args RawOtherFile.testAbles RawOtherFile.testAppend
        RawOtherFile.testModeStrings RawOtherFile.testTruncate* Reader*.test_garbage_collection
        Text*.test_append_bom Text*.test_basic_io Text*.test_encoded_writes Text*.test_issue1395_5
        Text*.test_issue25862 Text*.test_multibyte_seek_and_tell Text*.test_newlines_input
        Text*.test_rawio_write_through Text*.test_readlines Text*.test_reconfigure_defaults
        Text*.test_reconfigure_write Text*.test_reconfigure_write_fromascii Text*.test_seek_*
        Text*.test_seeking Text*.test_telling Writer*.test_garbage_collection Writer*.test_truncate*
        Writer*.test_write_and_rewind Writer*.test_writes_and_seeks Writer*.test_writes_and_truncates""",
    "an end has no descriptor, and its name is no path": """
        Files.test_*closefd* Files.test_*opener* Files.test_fspath_support
        Files.test_open_handles_NUL_chars Files.test_read_closed Files.test_unbounded_file
        Misc.test_nonblock_pipe_* Misc.test_open_pipe_with_append Misc.test_warn_on_dealloc_fd
        RawAutoFile.testBlksize RawAutoFile.testErrnoOn* RawAutoFile.testOpenDirFD RawAutoFile.testOpendir
        RawAutoFile.testReprNoCloseFD RawOtherFile.test*BytesOpen RawOtherFile.testBooleanFd>=3.13
        RawOtherFile.testConstructorHandlesNULChars RawOtherFile.testInvalidFd*
        RawOtherFile.testUnclosedFDOnException RawOtherFile.testUnicodeOpen RawOtherFile.test_open_code
        Reader*.test_fileno Writer*.test_fileno""",
    "an end cannot seek, and yet tells how far the stream has come": "*.test_unseekable",
    "a file that is collected, or fails to flush as it is closed, gives the stream up instead": """
        Reader.test_*close_error_on_close Reader.test_override_destructor Text.test_*close_error_on_close
        Writer*.test_destructor Writer.test_*close_error_on_close Writer.test_override_destructor""",
    "a write that failed, whatever it was, lets close() fail": """
        RawAutoFile.testWritelinesError RawAutoFile.test_reject""",
    "close() waits until what was written is taken": "Signals.test_reentrant_write_*",
    "a stream has no bounds between what was written": "Pair.test_write",
    "expects a name, a repr, a mode or a message of io, or sets it": """
        AutoFile.testErrors Misc.test_attributes<3.11 Misc.test_removed_u_mode>=3.11
        RawAutoFile.testAttributes RawAutoFile.testRecursiveRepr RawAutoFile.testRepr
        RawAutoFile.test_subclass_repr>=3.13 Reader*.test_recursive_repr Reader*.test_repr
        Text*.test_recursive_repr Text*.test_repr Text*.test_subclass_repr>=3.13
        Writer*.test_recursive_repr Writer*.test_repr""",
    "has a mock that breaks the rules or would block, or makes a subclass of what is a function here": """
        *.test_error_through_destructor *.test_misbehaved_io* Files.test_RawIOBase_read
        Files.test_destructor Pair.test_*_close_error_on_close Pair.test_constructor_with_*
        Pair.test_uninitialized Reader*.test_read_non_blocking Text*.test_destructor
        Text*.test_garbage_collection Text*.test_initialization Text*.test_issue119506>=3.13
        Text*.test_override_destructor Text*.test_uninitialized Text*.test_unreadable
        TextOfIo.test_illegal_decoder Writer*.test_write_non_blocking""",
    "uses no end: tests the module io, or what io does with its own files": """
        Files.test_*Base_destructor Files.test_*_nonsizeable Files.test_BufferedIOBase_readinto
        Files.test_IOBase_finalize Files.test_buffered_readinto_mixin Files.test_close_assert
        Files.test_types_have_dict Misc.test___all__ Misc.test_abcs Misc.test_blockingioerror
        Misc.test_check_encoding_* Misc.test_daemon_threads_* Misc.test_open_allargs
        Misc.test_openwrapper<3.12 Misc.test_readinto_buffer_overflow Misc.test_text_encoding>=3.11
        OtherFile.testStdin Pair.test_isatty RawOtherFile.testInvalidInit RawOtherFile.testWarnings
        Reader*.test_*_character_device_file>=3.13 Reader*.test_args_error Reader*.test_bad_readinto_*
        Reader*.test_read_on_closed Text*.test_create_at_shutdown_* Text*.test_device_encoding<3.11
        Text*.test_illegal_encoder Text*.test_internal_buffer_size Text*.test_issue22849
        Text*.test_read_byteslike Text*.test_read_nonbytes Text*.test_reconfigure_locale>=3.11
        Text*.test_rwpair_cleared_before_textio Writer*.test_args_error""",
}
matched = set()


def left_out():
    """The patterns of the table that are for this version."""
    for entry in " ".join(LEFT_OUT.values()).split():
        pattern, comparison, minor = re.fullmatch(r"([\w*.]+)(?:(<|>=)3\.(\d+))?", entry).groups()
        is_old = comparison and sys.version_info[:2] < (3, int(minor))
        if not comparison or is_old == (comparison == "<"):
            yield pattern


_numbers = itertools.count(1)
_ends = weakref.WeakSet()  # of the running test
_takers = []


def theirs(name, module):
    """A class of CPython's tests.  Since 3.14 the modules are in one package."""
    if MISSING:
        return object
    package = pkgutil.iter_modules(getattr(test_io, "__path__", ()), "test.test_io.")
    for candidate in (f"test.{module}", f"test.test_io.{module}", *(info.name for info in package)):
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(candidate), name)
    raise ImportError(f"CPython's tests have no {name}")


def fresh_name():
    return f"test-{os.getpid()}-cpython-{next(_numbers)}"


def raw_of(file):
    """The end in a file of `mmapipc.open`."""
    file = getattr(file, "buffer", file)
    return getattr(file, "raw", file)


def show_unless_closed(unraisable):
    if not isinstance(unraisable.exc_value, ValueError):
        sys.__unraisablehook__(unraisable)


class Taker:
    """Takes all that the Sender of that name sends, as it comes."""

    def __init__(self, name):
        self._receiver = mmapipc.Receiver(name, timeout=DEADLINE)
        self._pieces = []
        self._thread = Background(self._take)
        _takers.append(self)

    def _take(self):
        with contextlib.suppress(mmapipc.StreamAborted):
            while view := self._receiver.peek(1 << 22):
                self._pieces.append(bytes(view))
                self._receiver.consume(len(view))

    def pieces(self):
        """What was sent until now, in the pieces in which it came."""
        if self._receiver.in_flight:
            eventually(lambda: not self._receiver.in_flight, "all is taken")
        return self._pieces

    def end(self):
        """The Sender has ended the stream."""
        self._thread.result()
        self._receiver.close()


class Sending(mmapipc.Sender):
    """A Sender that says what came out at the other end, as BytesIO and the mocks of CPython's tests do."""

    def __init__(self, _=()):
        super().__init__(fresh_name(), timeout=DEADLINE)
        _ends.add(self)
        self._taker = Taker(self.name)

    @property
    def _write_stack(self):
        return self._taker.pieces()

    def getvalue(self):
        return b"".join(self._write_stack)


class SlowFlushing(Sending):
    def __init__(self):
        super().__init__()
        self.in_flush = threading.Event()

    def flush(self):
        self.in_flush.set()
        time.sleep(0.1)


class Fed(mmapipc.Receiver):
    """A Receiver that gets one piece for each read, and then the end; it counts as CPython's mocks do."""

    def __init__(self, pieces=()):
        self._pieces = list(pieces)
        size = sum(len(piece or b"") for piece in self._pieces)
        self._feeder = mmapipc.Sender(fresh_name(), capacity=max(1, size), timeout=DEADLINE)
        super().__init__(self._feeder.name, timeout=DEADLINE)
        _ends.update((self, self._feeder))
        self._reads = 0
        self._extraneous_reads = 0
        self.read_history = []

    def _feed(self):
        if self._pieces and (piece := self._pieces.pop(0)) is not None:
            self._feeder.write(piece)
            return True
        self._feeder.finish()
        return False

    def _feed_a_read(self):
        self._reads += 1
        if not self.in_flight and not self._feed():
            self._extraneous_reads += 1

    def readinto(self, buffer):
        self._feed_a_read()
        count = super().readinto(buffer)
        self.read_history.append(count)
        return count

    def read1(self, size=-1):
        self._feed_a_read()
        return super().read1(size)

    def read(self, size=-1):
        if size is None or size < 0:
            return self.readall()
        self._feed_a_read()
        return super().read(size)

    def readall(self):
        self._reads += 1
        while self._feed():
            pass
        return super().readall()


def fed(data):
    return Fed([data])


class Theirs(ChannelTest):
    """The base of what runs a class of CPython's tests: their `open` and their mocks give our ends."""

    is_C = True

    def __init_subclass__(cls):
        names = [f"{cls.__name__}.{name}" for name in dir(cls) if name.startswith("test")]
        for pattern in left_out():
            for name in fnmatch.filter(names, pattern):
                matched.add(pattern)
                setattr(cls, name.split(".")[1], None)  # the loader of tests passes it over

    def setUp(self):
        ChannelTest.setUp(self)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)  # where they leave files
        self.taken = {}
        self.before = next(_numbers)
        self.addCleanup(self._end)
        self.module = importlib.import_module(
            next(base.__module__ for base in type(self).__mro__ if base.__module__.startswith("test."))
        )
        context = contextlib.ExitStack()
        self.addCleanup(context.close)
        context.enter_context(mock.patch.object(self.module, "open", self.open, create=True))
        # They leave files open, for the collector; that ours warn then is tested in test_channel.
        context.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        # Those of io then want to flush what has been given up.
        context.enter_context(mock.patch.object(sys, "unraisablehook", show_unless_closed))
        super(ChannelTest, self).setUp()

    def _end(self):
        for end in list(_ends):
            end.abort()
        while _takers:
            _takers.pop().end()
        self.assertGreater(next(_numbers), self.before + 1, "this uses no channel, and need not run")

    def open(self, path, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options):
        """`mmapipc.open`: what was written under a path is what is read from it.

        A file for both directions, or of a descriptor, is one of CPython.
        """
        if isinstance(path, int) or set(mode) & set("+ax") and set(mode) <= set("rwaxbt+"):
            return io.open(path, mode, buffering, encoding, errors, newline, **options)
        name = fresh_name()
        if mode in ("r", "rt", "rb"):
            data = b"".join(self.taken[path].pieces())
            feeder = mmapipc.Sender(name, capacity=max(1, len(data)), timeout=DEADLINE)
            self.addCleanup(feeder.abort)
            feeder.write(data)
            feeder.finish()
        options.update(encoding=encoding, errors=errors, newline=newline, timeout=DEADLINE)
        file = mmapipc.open(name, mode, buffering=buffering, **options)
        _ends.add(raw_of(file))
        if mode[0] == "w":
            self.taken[path] = Taker(name)
        return file

    def FileIO(self, path, mode="r"):
        return self.open(path, mode if "b" in mode else mode + "b", 0)


for _name in set(io.__all__) - {"open", "FileIO"}:
    setattr(Theirs, _name, getattr(io, _name))


class Reading:
    MockRawIO = Fed
    MockFileIO = BytesIO = staticmethod(fed)


class Writing:
    MockRawIO = Sending
    SlowFlushRawIO = SlowFlushing


class Reader(Reading, Theirs, theirs("CBufferedReaderTest", "test_io")):
    tp = files.BufferedReceiver


class ReaderOfIo(Reading, Theirs, theirs("CBufferedReaderTest", "test_io")):
    tp = io.BufferedReader


class Writer(Writing, Theirs, theirs("CBufferedWriterTest", "test_io")):
    tp = files.BufferedSender


class WriterOfIo(Writing, Theirs, theirs("CBufferedWriterTest", "test_io")):
    tp = io.BufferedWriter


class Pair(Writing, Theirs, theirs("CBufferedRWPairTest", "test_io")):
    """An end in each direction, as one file."""

    BytesIO = staticmethod(fed)

    def tp(self, reader, writer, *arguments):
        return io.BufferedRWPair(Fed() if isinstance(reader, Sending) else reader, writer, *arguments)


class Texts:
    @staticmethod
    def BytesIO(data=None):
        return Sending() if data is None else fed(data)

    @staticmethod
    def MockRawIO(pieces=()):
        raw = Fed(pieces) if pieces else Sending()
        raw.stays_bare = True
        return raw

    def TextIOWrapper(self, buffer, *arguments, **options):
        if hasattr(buffer, "stays_bare"):
            return io.TextIOWrapper(buffer, *arguments, **options)
        if isinstance(buffer, Fed):
            buffer = self.BufferedReader(buffer)
        elif isinstance(buffer, Sending):
            raw, buffer = buffer, self.BufferedWriter(buffer)
            buffer.getvalue = lambda: buffer.flush() or raw.getvalue()
        return (self.TextWriter if buffer.writable() else self.TextReader)(buffer, *arguments, **options)


class Text(Texts, Theirs, theirs("CTextIOWrapperTest", "test_io")):
    BufferedReader = files.BufferedReceiver
    BufferedWriter = files.BufferedSender
    TextReader = files.TextReceiver
    TextWriter = files.TextSender


class TextOfIo(Texts, Theirs, theirs("CTextIOWrapperTest", "test_io")):
    TextReader = TextWriter = io.TextIOWrapper


class Files(Theirs, theirs("CIOTest", "test_io")):
    MockRawIO = BytesIO = Sending
    MockRawIOWithoutRead = Fed


class RawAutoFile(Theirs, theirs("CAutoFileTests", "test_fileio")):
    def setUp(self):
        super().setUp()
        io.open(self.module.TESTFN, "x").close()  # they will remove it


class Buffering(Theirs, theirs("CBufferSizeTest", "test_bufio")):
    def setUp(self):
        super().setUp()
        lengths = self.module.lengths
        fewer = mock.patch.object(self.module, "lengths", lengths[:256:15] + lengths[256:])
        fewer.start()
        self.addCleanup(fewer.stop)


for _name, _their_name, _module in (
    ("Misc", "CMiscIOTest", "test_io"),
    ("AutoFile", "CAutoFileTests", "test_file"),
    ("OtherFile", "COtherFileTests", "test_file"),
    ("RawOtherFile", "COtherFileTests", "test_fileio"),
    ("CRNewlines", "CTestCRNewlines", "test_univnewlines"),
    ("LFNewlines", "CTestLFNewlines", "test_univnewlines"),
    ("CRLFNewlines", "CTestCRLFNewlines", "test_univnewlines"),
    ("MixedNewlines", "CTestMixedNewlines", "test_univnewlines"),
):
    globals()[_name] = type(_name, (Theirs, theirs(_their_name, _module)), {"__module__": __name__})


class Signals(Theirs, theirs("CSignalsTest", "test_io")):
    """Their pipe is a channel here, and their second a tenth."""

    def setUp(self):
        super().setUp()
        self.io = SimpleNamespace(open=self.open_pipe)
        pipes = {
            "pipe": lambda: ("reading", "writing"),
            "read": lambda _, size: self.receiver.read(size),
            "write": lambda _, data: self.sender.write(data),
            "close": lambda end: self.receiver.abort() if end == "reading" else self.sender.abort(),
        }
        for where, what, replacement in (
            (self.module, "os", SimpleNamespace(**{**vars(os), **pipes})),
            (signal, "alarm", lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds / 10)),
            (select, "select", lambda *_: (["reading"] if self.receiver.poll(0.1) else [], [], [])),
        ):
            patch = mock.patch.object(where, what, replacement)
            patch.start()
            self.addCleanup(patch.stop)

    def open_pipe(self, _, mode, closefd, **options):
        name = fresh_name()
        if mode[0] == "w":
            file = mmapipc.open(name, mode, capacity=1 << 16, timeout=DEADLINE, **options)
            self.sender, self.receiver = raw_of(file), mmapipc.Receiver(name, timeout=DEADLINE)
        else:
            self.sender = mmapipc.Sender(name, timeout=DEADLINE)
            file = mmapipc.open(name, mode, timeout=DEADLINE, **options)
            self.receiver = raw_of(file)
        _ends.update((self.sender, self.receiver))
        return file


class Complete(unittest.TestCase):
    def test_cpython_has_its_tests(self):
        if MISSING and "MMAPIPC_NEEDS_TEST_PACKAGE" not in os.environ:  # as .ci/run says
            self.skipTest(MISSING)
        self.assertEqual(MISSING, "")

    @unittest.skipIf(MISSING, MISSING)
    def test_what_is_left_out_exists(self):
        self.assertEqual(set(left_out()) - matched, set())

    @unittest.skipIf(MISSING, MISSING)
    def test_most_are_run(self):
        loader = unittest.TestLoader()
        run = sum(len(loader.getTestCaseNames(case)) for case in Theirs.__subclasses__())
        self.assertGreater(run, 230)


if __name__ == "__main__":
    unittest.main()
