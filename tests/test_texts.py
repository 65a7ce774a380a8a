"""What the command says, as it is printed: a change of a text shows here."""

import os
import re
import subprocess
import unittest

import mmapipc

from .helpers import DEADLINE, MMAPIPC, ChannelTest

HELP = {
    "": """\
usage: mmapipc COMMAND ...

Stream bytes from one process to another on this machine, by name, through
shared memory.

options:
  -h, --help     show this help message and exit
  -V, --version  show program's version number and exit

commands:
  COMMAND
    send         send a file, or standard input, to a receiver
    receive      receive into a file, or to standard output
    inspect      show a channel, without disturbing it
    list         show all channels, and what killed processes left
    remove       delete what killed processes left of a channel
    map          show, read, write or make shared memory, of any program

example, in two terminals, in either order:
  mmapipc send greeting photo.jpg
  mmapipc receive greeting > copy.jpg

`mmapipc COMMAND --help` explains a command's options and exit codes.
""",
    "send": """\
usage: mmapipc send [options] NAME [FILE]

Send FILE, or standard input, to the receiver of the channel NAME.
The command ends when the receiver has read every byte.

positional arguments:
  NAME                  name of the channel: any text, the same at both ends
  FILE                  the file to send (default, or -: standard input)

options:
  -h, --help            show this help message and exit
  -B, --capacity, --buffer-size SIZE
                        size of the ring, such as 64KiB or 16MiB: the sender
                        can be that far ahead (default: 4MiB)
  --persist             when a receiver leaves early or is killed, wait for
                        the next one, which continues there
  --size SIZE           how much will come, so that the progress of a pipe can
                        show percentage and time left
  --timeout SECONDS     give up after SECONDS without progress; 500ms, 5s, 2m
                        and 1h work too (default: wait)
  --wait                if another process has this end of the channel, wait
                        until it leaves (default: fail)
  -L, --limit-rate, --rate-limit RATE
                        pass at most RATE bytes a second, such as 500kB or
                        10MiB (K, M, G and KiB, MiB, GiB are powers of 1024;
                        kB, MB, GB of 1000)
  --hash ALGORITHM      at the end print the digest of the stream as sha256sum
                        does (sha256, blake2b, md5 ...): on standard output,
                        or on standard error if the stream goes there; with
                        --resume, of the whole FILE
  -p, --progress        show bytes, time, rates and fill of the ring on
                        standard error; of a regular file also percentage and
                        time left (default: if standard error is a terminal
                        and the bytes come from, or go to, a regular file)
  -q, --quiet           print errors only
  --json                at the end, print a summary in JSON as the last line
                        of standard error
  --file PATH           keep the ring in the file PATH, the same at both ends:
                        bytes in it outlive both processes, and the sender
                        waits only until they are on disk
  -V, --version         show program's version number and exit

examples:
  mmapipc send greeting photo.jpg
  tar c photos | mmapipc send greeting
  mmapipc send greeting disk.img --limit-rate 10MiB --hash sha256

exit codes:
  0  the receiver has read every byte (with --file: it is on disk)
  1  error: a file, the memory, or another sender has the name
  2  usage
  3  incomplete: the receiver left early, gave up or was killed
  4  timed out
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
    "receive": """\
usage: mmapipc receive [options] NAME

Receive what the sender of the channel NAME sends, until the end of its stream.

positional arguments:
  NAME                  name of the channel: any text, the same at both ends

options:
  -h, --help            show this help message and exit
  -o, --output FILE     where to write (default, or -: standard output)
  --resume              continue FILE where an earlier receiver of this stream
                        (send --persist) stopped
  --timeout SECONDS     give up after SECONDS without progress; 500ms, 5s, 2m
                        and 1h work too (default: wait)
  --wait                if another process has this end of the channel, wait
                        until it leaves (default: fail)
  -L, --limit-rate, --rate-limit RATE
                        pass at most RATE bytes a second, such as 500kB or
                        10MiB (K, M, G and KiB, MiB, GiB are powers of 1024;
                        kB, MB, GB of 1000)
  --hash ALGORITHM      at the end print the digest of the stream as sha256sum
                        does (sha256, blake2b, md5 ...): on standard output,
                        or on standard error if the stream goes there; with
                        --resume, of the whole FILE
  -p, --progress        show bytes, time, rates and fill of the ring on
                        standard error; of a regular file also percentage and
                        time left (default: if standard error is a terminal
                        and the bytes come from, or go to, a regular file)
  -q, --quiet           print errors only
  --json                at the end, print a summary in JSON as the last line
                        of standard error
  --file PATH           keep the ring in the file PATH, the same at both ends:
                        bytes in it outlive both processes, and the sender
                        waits only until they are on disk
  -V, --version         show program's version number and exit

examples:
  mmapipc receive greeting > copy.jpg
  mmapipc receive greeting | tar x
  mmapipc receive greeting -o disk.img --resume

exit codes:
  0  every byte was received and written
  1  error: a file, the memory, or another receiver has the name
  2  usage
  3  incomplete: the sender gave up or was killed; or output closed early
  4  timed out
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
    "inspect": """\
usage: mmapipc inspect [options] NAME

Show the channel NAME: its two ends, how much was written and read, what is in
flight. Inspecting is read-only, never blocks the two ends, and tolerates
damaged memory.

positional arguments:
  NAME           name of the channel: any text, the same at both ends

options:
  -h, --help     show this help message and exit
  --watch        repeat until the channel ends, with rates: in place on a
                 terminal, elsewhere a line a second
  --json         print JSON
  --file PATH    the ring is in the file PATH
  -V, --version  show program's version number and exit

example:
  mmapipc inspect --watch greeting

exit codes:
  0  the channel was shown
  1  error: there is no such channel, or it is damaged
  2  usage
  3  output closed early
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
    "list": """\
usage: mmapipc list [options] [NAME ...]

Show this user's channels, one a line, and what killed processes have left.
PASSED is what the receiver has read, FILL how full the ring is.
Channels in files (send --file) are not listed: inspect them.
Windows does not tell which channels there are: there, give their names.

positional arguments:
  NAME           show only these channels (default: all)

options:
  -h, --help     show this help message and exit
  --json         print JSON
  -V, --version  show program's version number and exit

example:
  mmapipc list

exit codes:
  0  the channels were shown
  1  error: there is no channel of a given NAME
  2  usage
  3  output closed early
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
    "remove": """\
usage: mmapipc remove NAME

Delete what killed processes have left of the channel NAME, if no process uses
it. The next sender of that name would do it too. On Windows nothing is left:
a name goes with the last process that has it open.

positional arguments:
  NAME           name of the channel: any text, the same at both ends

options:
  -h, --help     show this help message and exit
  -V, --version  show program's version number and exit

example:
  mmapipc remove greeting

exit codes:
  0  removed
  1  error: there is no such channel, or a process uses it
  2  usage
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
    "map": """\
usage: mmapipc map [options] NAME | --tagname TAG | --file PATH

Show the size of shared memory and a hex dump of its beginning; or read, write
or make it.

positional arguments:
  NAME           name of an mmapipc.Mapping

options:
  -h, --help     show this help message and exit
  --tagname TAG  name by which the system knows the memory, of any program
  --file PATH    a file instead of memory
  --read         copy the bytes to standard output
  --write        store standard input there, once it has ended; store nothing
                 if it does not fit
  --create SIZE  make it, all zero bytes; keep it until standard input ends or
                 Ctrl-C (a file stays)
  --offset SIZE  the first byte, such as 4096 or 64KiB (default: 0)
  --length SIZE  how many bytes (default: all the rest; for the dump 256)
  --lock         hold the memory's lock meanwhile; others who use the lock see
                 all or nothing of it
  -V, --version  show program's version number and exit

examples:
  mmapipc map --tagname ShareMemoryTest
  mmapipc map table --read --offset 4KiB --length 100 > part
  printf hello | mmapipc map --tagname ShareMemoryTest --write --lock

exit codes:
  0  done
  1  error: there is no such memory, it is too small, or it exists already
  2  usage
  3  output closed early
  129, 130, 143  ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
""",
}

OVERVIEW = """\
mmapipc streams bytes from one process to another on this machine, by name.

  mmapipc send     send a file, or standard input, to a receiver
  mmapipc receive  receive into a file, or to standard output
  mmapipc inspect  show a channel, without disturbing it
  mmapipc list     show all channels, and what killed processes left
  mmapipc remove   delete what killed processes left of a channel
  mmapipc map      show, read, write or make shared memory, of any program

mmapipc --help shows an example; mmapipc send --help explains send.
"""

# Command line, exit code, what is said.  NAME is the test's channel, which nobody uses; FOLDER is a folder.
REFUSED = (
    ("send", 2, "mmapipc send: the following arguments are required: NAME (see mmapipc send --help)"),
    (
        "send x --capacity 4bananas",
        2,
        "mmapipc send: argument -B/--capacity/--buffer-size: '4bananas' is not a size of at least one byte "
        "(try 64KiB or 4MiB) (see mmapipc send --help)",
    ),
    (
        "receive x --timeout -1",
        2,
        "mmapipc receive: argument --timeout: '-1' is not a duration of 0 or more (try 5s, 500ms or 2m) "
        "(see mmapipc receive --help)",
    ),
    (
        "receive x --timeout soon",
        2,
        "mmapipc receive: argument --timeout: 'soon' is not a duration of 0 or more (try 5s, 500ms or 2m) "
        "(see mmapipc receive --help)",
    ),
    (
        "send x --hash sha257",
        2,
        "mmapipc send: argument --hash: 'sha257' is not a hash that this Python has "
        "(try sha256, blake2b or md5) (see mmapipc send --help)",
    ),
    (
        "send x --nonsense",
        2,
        "mmapipc send: unrecognized arguments: --nonsense (see mmapipc send --help)",
    ),
    ("receive x --resume", 2, "mmapipc receive: --resume needs -o FILE (see mmapipc receive --help)"),
    (
        "map",
        2,
        "mmapipc map: give one of NAME, --tagname TAG and --file PATH (see mmapipc map --help)",
    ),
    (
        "map x --create 4096 --lock",
        2,
        "mmapipc map: --create makes all of it: no --offset, --length or --lock (see mmapipc map --help)",
    ),
    ("send NAME FOLDER/missing", 1, "mmapipc: NAME: FOLDER/missing: No such file or directory"),
    (
        "send NAME FOLDER/file --timeout 100ms",
        4,
        "mmapipc: NAME: no receiver came within 0.1 s; 5 bytes were not delivered",
    ),
    (
        "receive NAME --timeout 100ms",
        4,
        "mmapipc: NAME: no sender came within 0.1 s; start one or wait longer",
    ),
)
REFUSED_WHERE_NOBODY_IS = (
    ("inspect NAME", 1, "mmapipc: NAME: there is no channel of that name"),
    ("list NAME", 1, "mmapipc: NAME: there is no channel of that name"),
    ("remove NAME", 1, "mmapipc: NAME: there is no channel of that name"),
    ("inspect NAME --file FOLDER/ring", 1, "mmapipc: NAME: there is no channel in FOLDER/ring"),
)

# The same, where the test has a sender on the channel NAME, and no receiver.
REFUSED_BESIDE_A_SENDER = (
    (
        "send NAME",
        1,
        "mmapipc: NAME: there is a sender already (pid PID); end that process, or use another name",
    ),
    ("remove NAME", 1, "mmapipc: NAME: there is a sender (pid PID); end it first"),
    ("receive NAME -o FOLDER", 1, "mmapipc: NAME: FOLDER: Is a directory"),
)

INSPECTED = """\
name      NAME
memory    MEMORY
status    no receiver
layout    version 2
stream    0123456789abcdef
capacity  65536 bytes (64.0 KiB)
sender    open, pid PID
receiver  absent
written   5 bytes
read      0 bytes
in flight 5 bytes, 0.0 % full
"""

LISTED = """\
NAME  STATUS         SENDER  RECEIVER      PASSED   FILL
NAME  no receiver       PID         -         0 B    0 %
"""

# What `--json` prints last, when a receiver has got the file, and when none has come.
SUMMARY = """\
{"channel": "NAME", "bytes": 5, "seconds": N, "rate": N, "digest": "5d41402abc4b2a76b9719d911017c592", \
"ended": "complete", "exit_code": 0, "error": null}
"""
TIMED_OUT = """\
mmapipc: NAME: no sender came within 0.1 s; start one or wait longer
{"channel": "NAME", "bytes": 0, "seconds": N, "rate": N, "digest": null, "ended": "timed out", \
"exit_code": 4, "error": "NAME: no sender came within 0.1 s; start one or wait longer"}
"""


class Texts(ChannelTest):
    def said(self, line):
        """The exit code of a command, and what it prints on standard output and standard error."""
        (self.folder / "file").write_bytes(b"hello")
        line = line.replace("NAME", self.name).replace("FOLDER", str(self.folder).replace("\\", "/"))
        child = self.start(
            [*MMAPIPC, *line.split()], stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "80"}
        )
        code, out, err = child.end()
        return code, self.without_names(out.decode().replace("\r\n", "\n")), self.without_names(err)

    def without_names(self, text):
        text = text.replace("\\", "/")
        for name, shown in (
            (str(self.folder).replace("\\", "/"), "FOLDER"),
            (self.name, "NAME"),
            (f"pid {os.getpid()}", "pid PID"),
        ):
            text = text.replace(name, shown)
        return text

    def test_help(self):
        def case(self, command):
            self.assertEqual(self.said(f"{command} --help"), (0, HELP[command], ""))

        self.side_by_side(case, HELP)

    def test_nothing_given(self):
        self.assertEqual(self.said(""), (2, "", OVERVIEW))

    def test_refusals(self):
        def case(self, refusal):
            line, code, said = refusal
            self.assertEqual(self.said(line), (code, "", f"{said}\n"))

        self.side_by_side(case, REFUSED)
        for refusal in REFUSED_WHERE_NOBODY_IS:  # so there are no like names to be proposed
            case(self, refusal)

    def test_beside_a_sender(self):
        with mmapipc.Sender(self.name, capacity=1 << 16, timeout=DEADLINE) as sender:
            sender.write(b"hello")
            for line, code, said in REFUSED_BESIDE_A_SENDER:
                self.assertEqual(self.said(line), (code, "", f"{said}\n"))
            for line, shown in (("inspect NAME", INSPECTED), ("list NAME", LISTED)):
                code, out, err = self.said(line)
                out = re.sub(r"(?<=^memory    ).*", "MEMORY", out, flags=re.MULTILINE)
                out = re.sub(r"(?<=^stream    )[0-9a-f]{16}$", "0123456789abcdef", out, flags=re.MULTILINE)
                out = re.sub(rf" +{os.getpid()}\b(?= +- )", "       PID", out)
                if line.startswith("list"):  # whose columns are as wide as the name
                    out = re.sub(r"^NAME +STATUS", "NAME  STATUS", out)
                self.assertEqual((code, out, err), (0, shown, ""))
            sender.abort()

    def test_summaries(self):
        def summary(text):
            return re.sub(r'("seconds"|"rate"): [0-9.]+', r"\1: N", text)

        sender = self.send(self.file(b"hello"), "--hash", "md5", "--json")
        code, out, err = self.said("receive NAME -o FOLDER/got --hash md5 --json")
        self.assertEqual((code, summary(err)), (0, SUMMARY))
        code, _, err = sender.end()
        self.assertEqual((code, summary(self.without_names(err.replace("\r\n", "\n")))), (0, SUMMARY))
        code, out, err = self.said("receive NAME --timeout 100ms --json")
        self.assertEqual((code, out, summary(err)), (4, "", TIMED_OUT))
