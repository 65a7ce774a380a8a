"""A terminal to draw on, and what it then shows."""

import os
import re
import subprocess

from mmapipc._cli.terminal import width

from .helpers import DEADLINE, MMAPIPC, ChannelTest


class Terminal:
    """So much of a terminal as is used: lines with a cursor."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self.row = 0
        self.column = 0
        self.longest = 0
        self.draws = 0
        self.rest = ""  # the beginning of a sequence
        self.behind: tuple[list[str], int, int] | None = None  # the first screen, while the other is shown

    def write(self, text: str) -> None:
        text = self.rest + text
        self.rest = re.search(r"(\x1b[^A-Za-z]*|\r)?\Z", text)[0]
        for part in re.findall(r"\x1b\[[?0-9]*[A-Za-z]|\r\n|\r|[^\x1b\r]+", text.removesuffix(self.rest)):
            if part == "\r\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
                self.column = 0
            elif part == "\r":
                self.column = 0
            elif part == "\x1b[?1049h":
                self.behind = self.lines, self.row, self.column
                self.lines, self.row, self.column = [""], 0, 0
            elif part == "\x1b[?1049l":
                self.lines, self.row, self.column = self.behind
            elif part == "\x1b[H":
                self.row = self.column = 0
                self.draws += 1
            elif part == "\x1b[K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            elif part == "\x1b[J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            elif part.startswith("\x1b"):
                raise AssertionError(f"an unknown sequence: {part!r}")
            else:
                self.lines[self.row] = part + self.lines[self.row][len(part) :]
                self.column = len(part)
                self.longest = max(self.longest, width(part))


class TerminalTest(ChannelTest):
    """A test with a terminal, whose name is `tty`.  POSIX only."""

    def setUp(self):
        super().setUp()
        self.open_terminal()

    def part(self):
        part = super().part()
        part.open_terminal()
        return part

    def open_terminal(self):
        import pty

        self.master, self.slave = pty.openpty()
        for descriptor in (self.master, self.slave):
            self.addCleanup(os.close, descriptor)
        self.tty = os.ttyname(self.slave)
        self.resize(80)

    def resize(self, columns, rows=24):
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        """What has come."""
        import select

        self.assertTrue(select.select([self.master], [], [], DEADLINE)[0], "nothing came")
        return os.read(self.master, 1 << 16).decode()

    def on_terminal(self, redirections, *arguments, stdin=subprocess.DEVNULL, **more):
        """A command of ours; the shell's `redirections` of "$0" put its standard streams on the terminal."""
        command = ["sh", "-c", f'exec "$@" {redirections}', self.tty, *MMAPIPC, *arguments]
        return self.start(command, stdin=stdin, env={**os.environ, "TERM": "xterm", **more})
