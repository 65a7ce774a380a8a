"""The error messages of the library, word for word: a change of one shows in review.

Each row is code that provokes a message by public calls, and then the last line of its traceback,
folded, with these words for what changes: NAME is the name of the channel or mapping, FILE the path
of the file, FOLDER that of its folder, PID a process, LONGEST the longest timeout, and GRANULE is
`mmap.ALLOCATIONGRANULARITY`.  Where Windows says something else, that is below.
"""

import ast
import asyncio
import contextlib
import gc
import inspect
import mmap
import os
import pickle
import pydoc
import re
import subprocess
import threading
import types
import unittest
import warnings
from typing import Any

import mmapipc
import mmapipc.aio
import mmapipc.connection

from .helpers import WINDOWS, ChannelTest, Child

ENDS = r"""
mmapipc.Sender("")
: InvalidName: (no name): the name must have at least 1 character

mmapipc.Receiver("x" * 300)
: InvalidName: xxxxxxxxxxxxxxxxxxxx...: the name has 300 characters when it is encoded; use at most 200

mmapipc.Sender(7)
: TypeError: the name of a channel must be a str, not int

mmapipc.Sender(name, capacity=0)
: InvalidCapacity: NAME: the capacity must be from 1 to 2**62 bytes, not 0

mmapipc.Sender(name, timeout=-1)
: ValueError: NAME: the timeout must be None, or from 0 to LONGEST seconds, not -1

mmapipc.Receiver(name, timeout="soon")
: ValueError: NAME: the timeout must be None, or from 0 to LONGEST seconds, not 'soon'

mmapipc.Receiver(name, timeout=0)
: ChannelTimeout: NAME: no sender came within 0 s; start one or wait longer

s = mmapipc.Sender(name)
mmapipc.Sender(name)
: RoleTaken: NAME: there is a sender already (pid PID); end that process, or use another name

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
mmapipc.Receiver(name)
: RoleTaken: NAME: there is a receiver already (pid PID); end that process, or use another name

s = mmapipc.Sender(name)
mmapipc.Sender(name, timeout=0.01, wait_for_role=True)
: ChannelTimeout: NAME: another sender (pid PID) still has the role after 0.01 s; end it or wait longer

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
mmapipc.Receiver(name, timeout=0, wait_for_role=True)
: ChannelTimeout: NAME: another receiver (pid PID) still has the role after 0 s; end it or wait longer

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.abort()
mmapipc.Sender(name, timeout=0)
: ChannelTimeout: NAME: a receiver still reads an earlier stream after 0 s; end it or wait longer

m = mmapipc.Mapping(name, 5000)
m.buf[:4] = b"data"
mmapipc.Receiver(name, timeout=0)
: LayoutError: NAME: the memory of that name is not an mmapipc channel; use another name

m = mmapipc.Mapping(name, 5000)
mmapipc.Sender(name, timeout=0)
: ChannelTimeout: NAME: a process that is not attached still has the memory of that name open after 0 s;
    end it or wait longer

m = mmapipc.Mapping(name, 5000)
mmapipc.Sender(name)
: MemoryRefused: NAME: a process that is not attached has the memory of that name open; end it, or use
    another name

l = mmapipc.connection.Listener(name)
mmapipc.Receiver(name)
: LayoutError: NAME: the name belongs to a listener, not to a channel; use mmapipc.connection.Client, or
    another name

s = mmapipc.Sender(name, timeout=0)
s.close()
: ChannelTimeout: NAME: no receiver came within 0 s; 0 bytes were not delivered

s = mmapipc.Sender(name, timeout=0)
s.write(b"1")
s.close()
: ChannelTimeout: NAME: no receiver came within 0 s; 1 byte was not delivered

s = mmapipc.Sender(name, timeout=0)
s.write(b"123")
s.close()
: ChannelTimeout: NAME: no receiver came within 0 s; 3 bytes were not delivered

s = mmapipc.Sender(name, timeout=0.01)
s.write(bytes(5 << 20))
: ChannelTimeout: NAME: no receiver came within 0.01 s; 4 MiB were not delivered

s = mmapipc.Sender(name, timeout=0)
r = mmapipc.Receiver(name)
s.write(bytes(1536 << 10))
s.close()
: ChannelTimeout: NAME: the receiver read nothing for 0 s; 1536 KiB were not delivered

s = mmapipc.Sender(name, timeout=0, capacity=4)
r = mmapipc.Receiver(name)
s.write(b"12345")
: ChannelTimeout: NAME: the receiver read nothing for 0 s; 0 bytes were not delivered

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name, timeout=0)
r.read(5)
: ChannelTimeout: NAME: the sender sent nothing for 0 s

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.write(b"123")
r.read(5)
s.abort()
r.read(5)
: StreamAborted: NAME: the sender gave up; the stream is not whole: it stops after 3 bytes

child("s = mmapipc.Sender(name); s.write(b'1')")
r = mmapipc.Receiver(name)
r.read(1)
other.kill()
r.read(1)
: SenderDied: NAME: the sender died; the stream is not whole: it stops after 1 byte

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.write(b"123")
r.abort()
s.close()
: ReceiverGone: NAME: the receiver gave up; 3 bytes were not delivered

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
r.close()
s.check_receiver()
: ReceiverLeft: NAME: the receiver left early; 0 bytes were not delivered

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.write(b"123")
r.close()
s.close()
: ReceiverLeft: NAME: the receiver left early; 3 bytes were not delivered

s = mmapipc.Sender(name)
s.write(b"123")
child("r = mmapipc.Receiver(name)")
other.kill()
s.close()
: ReceiverGone: NAME: the receiver died; 3 bytes were not delivered

s = mmapipc.Sender(name)
child("r = mmapipc.Receiver(name)")
other.kill()
s.check_receiver()
: ReceiverGone: NAME: the receiver died; 0 bytes were not delivered

s = mmapipc.Sender(name)
s.abort()
s.write(b"1")
: ValueError: NAME: I/O operation on closed channel

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.finish()
s.write(b"1")
: ValueError: NAME: the stream is finished

s = mmapipc.Sender(name)
s.read()
: UnsupportedOperation: read

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
r.write(b"1")
: UnsupportedOperation: write

s = mmapipc.Sender(name)
s.seek(0)
: UnsupportedOperation: seek

s = mmapipc.Sender(name)
s.fileno()
: UnsupportedOperation: fileno

s = mmapipc.Sender(name)
s.reserve(0)
: ValueError: a view must have at least 1 byte, not 0

s = mmapipc.Sender(name)
s.commit(1)
: ValueError: NAME: the view has 0 bytes, not 1

s = mmapipc.Sender(name, capacity=1)
s.reserve(9)
s.commit(2)
: ValueError: NAME: the view has 1 byte, not 2

s = mmapipc.Sender(name)
s.reserve(9)
s.write(b"1")
: ValueError: NAME: commit() the reserved view first

s = mmapipc.Sender(name)
s.timeout = -1
: ValueError: NAME: the timeout must be None, or from 0 to LONGEST seconds, not -1

s = mmapipc.Sender(name, capacity=4, timeout=0)
with failing: s.write(b"12345")
s.finish()
: StreamAborted: NAME: an earlier write failed, so the stream was given up and not finished

s = mmapipc.Sender(name, capacity=4, timeout=0)
with failing: s.write(b"12345")
with failing: s.finish()
s.write(b"1")
: ValueError: NAME: the stream was given up, because an earlier write failed

s = mmapipc.Sender(name, capacity=4, timeout=0.01)
r = mmapipc.Receiver(name)
with failing: s.write(b"12345")
s.write(b"1")
: ValueError: NAME: an earlier write was cut short, so nothing can follow it

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name, timeout=0)
with failing: r.readall()
r.readall()
: ReadFailed: NAME: an earlier read failed, and the file around the Receiver may have lost bytes; read
    from the Receiver itself

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name, timeout=0)
with failing: r.readinto(bytearray(1))
r.readinto(bytearray(1))
: ReadFailed: NAME: an earlier read failed, and the file around the Receiver may have lost bytes; read
    from the Receiver itself

s = mmapipc.Sender(name)
r = mmapipc.Receiver(name)
s.write(b"1")
r.readinto(b"1")
: TypeError: NAME: readinto() needs a writable buffer whose bytes are in one piece

s = mmapipc.Sender(name)
pickle.dumps(s)
: TypeError: NAME: cannot pickle or copy an end of a channel; open the channel by its name

s = mmapipc.Sender(name)
s.bell.handle if os.name == "posix" else s.bell.fileno()
: AttributeError: a bell has no handle on POSIX: wait for its fileno()
on Windows: UnsupportedOperation: a bell has no descriptor on Windows: wait for its handle

mmapipc.wait(["x"])
: TypeError: wait: 'x' is not an end of a channel, and has no descriptor or handle

s = mmapipc.Sender(name)
s.abort()
mmapipc.wait([s])
: ValueError: NAME: I/O operation on closed channel

mmapipc.wait([], timeout=-1)
: ValueError: wait: the timeout must be None, or from 0 to LONGEST seconds, not -1
"""

FILES = r"""
s = mmapipc.Sender(name, file=path)
s.write(b"1")
s.close()
mmapipc.Sender(name, file=path)
: Undelivered: NAME: FILE still has 1 byte of an earlier stream; receive them, or remove the file

s = mmapipc.Sender(name, file=path)
s.write(bytes(2 << 20))
s.close()
mmapipc.Sender(name, file=path)
: Undelivered: NAME: FILE still has 2 MiB of an earlier stream; receive them, or remove the file

s = mmapipc.Sender(name, file=path)
mmapipc.Sender(name, file=path)
: RoleTaken: NAME: there is a sender already (pid PID); end that process, or use another file

s = mmapipc.Sender(name, file=path)
s.close()
mmapipc.Sender("another", file=path)
: LayoutError: another: FILE belongs to a channel whose name is not 'another'; use its name, or another
    file

f = open(path, "w")
f.write("text")
f.close()
mmapipc.Sender(name, file=path)
: LayoutError: NAME: FILE is a file of another kind, and was not changed; use another file

mmapipc.Sender(name, file=os.path.dirname(path))
: NameTaken: NAME: FOLDER: this is not a regular file; use another one

mmapipc.Sender(name, file=os.path.join(path, "missing"))
: NoSuchMapping: NAME: FILE/missing: No such file or directory

mmapipc.Receiver(name, file=path, timeout=0)
: ChannelTimeout: NAME: no sender came within 0 s; start one or wait longer

s = mmapipc.Sender(name, file=path)
s.write(b"1")
os.remove(path)
s.close()
: NoSuchMapping: NAME: FILE was removed or replaced while the stream was in it; its end, and what no
    receiver has acknowledged, is lost: send the stream again
on Windows: cannot be

s = mmapipc.Sender(name, file=path)
s.close()
f = open(path, "r+b")
f.seek(7)
f.write(b"\x09")
f.close()
mmapipc.Receiver(name, file=path)
: LayoutError: NAME: the channel has layout version 9, this mmapipc has 2; use the same version of
    mmapipc at both ends

mmapipc.open(name, "x")
: ValueError: NAME: the mode must be 'rb', 'wb', 'r', 'rt', 'w' or 'wt', not 'x'

mmapipc.open(name, "wb", encoding="utf-8")
: ValueError: NAME: a binary file has no encoding; use mode 'w'

mmapipc.open(name, "r", buffering=0)
: ValueError: NAME: buffering=0 needs mode 'rb' or 'wb'; a text file always has a buffer

mmapipc.open(name, "wb", buffering=1)
: RuntimeWarning: NAME: line buffering (buffering=1) is for text files; this file has a buffer of the
    usual size

s = mmapipc.Sender(name)
f = mmapipc.open(name, timeout=0)
with failing: f.read()
f.read()
: ReadFailed: NAME: an earlier read failed, and the file around the Receiver may have lost bytes; read
    from the Receiver itself

s = mmapipc.Sender(name)
f = mmapipc.open(name, timeout=0)
with failing: f.read()
f.poll()
: ReadFailed: NAME: an earlier read failed, and the file around the Receiver may have lost bytes; read
    from the Receiver itself

f = mmapipc.open(name, "wb", timeout=0, capacity=4, buffering=1000)
f.write(b"12345")
with failing: f.flush()
f.close()
: ValueError: NAME: an earlier write failed, so nothing can follow it
"""

MAPPINGS = r"""
mmapipc.Mapping("", 10)
: InvalidName: (no name): the name must have at least 1 character

mmapipc.Mapping(7, 10)
: TypeError: the name of a mapping must be a str, not int

mmapipc.Mapping(name, 10, tagname=name)
: InvalidName: NAME: give a name or a tagname, not both

mmapipc.Mapping(create=False)
: InvalidName: (no name): give the name, the tagname or the file to open

mmapipc.Mapping(tagname="x" * 300, size=10)
: InvalidName: xxxxxxxxxxxxxxxxxxxx: a tagname must have 1 to 255 bytes, and no / except at its
    beginning
on Windows: InvalidName: xxxxxxxxxxxxxxxxxxxx: a tagname must have 1 to 260 characters, and no \ except
    after Global or Local at its beginning

mmapipc.Mapping(tagname="a/b\\c", size=10)
: InvalidName: a/b\c: a tagname must have 1 to 255 bytes, and no / except at its beginning
on Windows: InvalidName: a/b\c: a tagname must have 1 to 260 characters, and no \ except after Global or
    Local at its beginning

mmapipc.Mapping(name)
: InvalidSize: NAME: the size must be from 1 to 2**62 bytes, not 0; use create=False to open memory with
    the size that it has

mmapipc.Mapping(name, -1)
: InvalidSize: NAME: the size must be from 1 to 2**62 bytes, not -1; use create=False to open memory
    with the size that it has

mmapipc.Mapping(name, 10, access="all")
: ValueError: NAME: access must be 'write', 'read' or 'copy', not 'all'

mmapipc.Mapping(name, 10, create=False, exist_ok=False)
: ValueError: NAME: exist_ok=False makes something new, so it needs create=True

mmapipc.Mapping(name, create=False)
: NoSuchMapping: NAME: there is no memory of that name; make it first

mmapipc.Mapping(tagname=name, create=False)
: NoSuchMapping: NAME: there is no memory of that tagname; make it first
on Windows: NoSuchMapping: NAME: there is no memory of that name; make it first

m = mmapipc.Mapping(name, 10)
mmapipc.Mapping(name, 10, exist_ok=False)
: MappingExists: NAME: it exists already, and was to be new; use another name or file

m = mmapipc.Mapping(name, 10)
mmapipc.Mapping(name, 1 << 20)
: MappingTooSmall: NAME: the memory has 10 bytes, not 1048576; ask for fewer
on Windows: MappingTooSmall: NAME: the memory has 4096 bytes, not 1048576; ask for fewer

mmapipc.Mapping(name, 10, offset=1)
: InvalidView: NAME: offset 1 is not a multiple of GRANULE (mmap.ALLOCATIONGRANULARITY); use the
    multiple below it

mmapipc.Mapping(name, 10, length=11)
: InvalidView: NAME: the view must have at least 1 byte and be inside the mapping of 10 bytes, not 11
    bytes at offset 0

mmapipc.Mapping(name, 10, length=0)
: InvalidView: NAME: the view must have at least 1 byte and be inside the mapping of 10 bytes, not 0
    bytes at offset 0

m = mmapipc.Mapping(name, 10)
m.flush(9, 2)
: InvalidView: NAME: 2 bytes at offset 9 cannot be flushed: the view has 10 bytes

s = mmapipc.Sender(name)
mmapipc.Mapping(name, 10)
: NameTaken: NAME: the name belongs to a channel with a sender; use another name

m = mmapipc.Mapping(name, 10, file=path)
mmapipc.Mapping(name, 10)
: NameTaken: NAME: the name belongs to a mapping of a file; give the file too, or use another name

m = mmapipc.Mapping(name, 10)
mmapipc.Mapping(name, 10, file=path)
: NameTaken: NAME: the name belongs to memory without a file; leave the file out, or use another name

mmapipc.Mapping(file=path)
: NoSuchMapping: FILE: No such file or directory; make it, or give a size, create=True and
    access='write'

mmapipc.Mapping(file=path, size=10, create=False)
: NoSuchMapping: FILE: No such file or directory; make it, or give a size, create=True and
    access='write'

mmapipc.Mapping(file=os.path.dirname(path), size=10)
: NameTaken: FOLDER: this is not a regular file; use another one

mmapipc.Mapping(file=3.5, size=10)
: TypeError: the file of a mapping must be a path, a file or a descriptor, not float

open(path, "w").close()
mmapipc.Mapping(file=path)
: InvalidSize: FILE: the file is empty; give a size to extend it

f = open(path, "w")
f.write("1")
f.close()
mmapipc.Mapping(file=path, size=2, create=False)
: MappingTooSmall: FILE: the file has 1 byte, not 2; ask for fewer, or extend it with create=True and
    access='write'

open(path, "w").close()
mmapipc.Mapping(file=path, size=10, exist_ok=False)
: MappingExists: FILE: it exists already, and was to be new; use another name or file

m = mmapipc.Mapping(tagname=name, file=path, size=10)
: InvalidName: NAME: a mapping of a file has a tagname only on Windows; use a name, or none
on Windows: no error

m = mmapipc.Mapping(name, 10)
m.close()
m.buf
: ValueError: NAME: the mapping is closed

m = mmapipc.Mapping(name, 10)
part = m.buf[1:]
m.close()
: BufferError: NAME: a slice or an array of the mapping is in use; release it, then close

m = mmapipc.Mapping(name, 10)
pickle.dumps(m)
: TypeError: NAME: a mapping cannot be pickled; give its name, and open it there

m = mmapipc.Mapping(name, 10)
m.unlink()
: ValueError: NAME: only a tagname can be unlinked

m = mmapipc.Mapping(name, 10)
m.lock(timeout=-1)
: ValueError: NAME: the timeout must be None, or from 0 to LONGEST seconds, not -1

m = mmapipc.Mapping(name, 10)
with m.lock():
  with m.lock(): pass
: AlreadyLocked: NAME: this thread has the lock already; release it first

child("m = mmapipc.Mapping(name, 10); g = m.lock(); g.__enter__()")
m = mmapipc.Mapping(name, 10)
with m.lock(timeout=0): pass
: ChannelTimeout: NAME: pid PID still has the lock after 0 s
on Windows: ChannelTimeout: NAME: somebody else still has the lock after 0 s

m = mmapipc.Mapping(tagname=name, size=10)
m.unlink()
with m.lock(tagname=name): pass
: InvalidName: NAME: only Windows has mutexes with a tagname; leave the tagname out
on Windows: NameTaken: NAME: NAME is the name of an object of another kind; use another name

m = mmapipc.Mapping(name, 10)
m.close()
with m.lock(): pass
: ValueError: NAME: the mapping is closed
"""

CONNECTIONS = r"""
mmapipc.connection.Listener(("localhost", 80))
: TypeError: the address must be a name (a str), not ('localhost', 80)

mmapipc.connection.Listener("localhost", "AF_INET")
: ValueError: AF_INET: connections are between processes of one machine; leave the family out

mmapipc.connection.Listener(name, authkey=b"secret")
: ValueError: an authkey is not needed, since only processes of the same user can connect; leave it out

mmapipc.connection.Listener(name, capacity=0)
: InvalidCapacity: NAME: the capacity must be from 1 to 2**61 bytes, not 0

mmapipc.connection.Client(name, timeout=-1)
: ValueError: NAME: the timeout must be None, or from 0 to LONGEST seconds, not -1

mmapipc.connection.Client(name, timeout=0)
: ChannelTimeout: NAME: no listener came within 0 s; start one or wait longer

l = mmapipc.connection.Listener(name)
mmapipc.connection.Listener(name)
: RoleTaken: NAME: another listener has this address (pid PID); use another address, or close that listener

s = mmapipc.Sender(name)
mmapipc.connection.Client(name)
: LayoutError: NAME: the name belongs to a channel, not to a listener; use mmapipc.Receiver, or the name
    of a listener

l = mmapipc.connection.Listener(name)
a = mmapipc.connection.Client(name)
b = mmapipc.connection.Client(name)
mmapipc.connection.Client(name, timeout=0)
: ChannelTimeout: NAME: the listener accepted nobody within 0 s; wait longer

l = mmapipc.connection.Listener(name, timeout=0)
l.accept()
: ChannelTimeout: NAME: no client came within 0 s; start one or wait longer

l = mmapipc.connection.Listener(name)
l.close()
l.accept()
: OSError: NAME: the listener is closed

l = mmapipc.connection.Listener(name)
a = mmapipc.connection.Client(name)
l.close()
a.recv()
: StreamAborted: NAME: the other end gave up in the middle of a message, or before the connection was
    accepted

a, b = mmapipc.connection.Pipe()
a.close()
a.send(1)
: OSError: the connection is closed

a, b = mmapipc.connection.Pipe()
a.send(1)
a.close()
b.recv()
b.recv()
: EOFError: the other end has closed the connection

a, b = mmapipc.connection.Pipe()
b.poll()
a.close()
b.send(1)
: ReceiverLeft: pipe: the other end has closed the connection

a, b = mmapipc.connection.Pipe(duplex=False)
a.send(1)
: OSError: the connection is read-only

a, b = mmapipc.connection.Pipe(duplex=False)
b.recv()
: OSError: the connection is write-only, or had a message that was too long

a, b = mmapipc.connection.Pipe(timeout=0)
a.recv()
: ChannelTimeout: pipe: the other end sent nothing for 0 s

a, b = mmapipc.connection.Pipe(timeout=0, capacity=10)
b.poll()
a.send_bytes(b"12345")
a.send_bytes(bytes(9))
: ChannelTimeout: pipe: the other end received nothing for 0 s, so the message was not sent

a, b = mmapipc.connection.Pipe()
a.send_bytes(b"12")
b.recv_bytes(1)
: OSError: the message is longer than maxlength (1); nothing more can be received

a, b = mmapipc.connection.Pipe(duplex=False)
b.send_bytes(b"12")
with failing: a.recv_bytes(1)
a.recv()
: OSError: the connection is closed

a, b = mmapipc.connection.Pipe()
a.send_bytes(b"12")
b.recv_bytes_into(bytearray(1))
: BufferTooShort: b'12'

a, b = mmapipc.connection.Pipe()
a.send_bytes(b"12")
b.recv_bytes_into(b"1")
: TypeError: the buffer must be writable and in one piece

a, b = mmapipc.connection.Pipe()
a.recv_bytes(-1)
: ValueError: negative maxlength

a, b = mmapipc.connection.Pipe()
a.send_bytes(b"12", 3)
: ValueError: buffer length < offset

a, b = mmapipc.connection.Pipe()
a.fileno()
: UnsupportedOperation: a connection has no descriptor; use wait(), poll(), or its bell

a, b = mmapipc.connection.Pipe()
a.timeout = -1
: ValueError: connection: the timeout must be None, or from 0 to LONGEST seconds, not -1

a, b = mmapipc.connection.Pipe()
a.close()
pickle.dumps(a)
: TypeError: a connection that is closed, or that a process has used, cannot be passed on; pass an
    unused end of Pipe(), or the address of a Listener

a, b = mmapipc.connection.Pipe(timeout=0.01, capacity=8)
b.poll()
with failing: a.send_bytes(bytes(99))
a.send_bytes(b"1")
: StreamAborted: pipe: an earlier message was longer than the ring and was cut short, so nothing can
    follow it; close this connection

a, b = mmapipc.connection.Pipe(timeout=0.01, capacity=8)
b.poll()
with failing: a.send_bytes(bytes(99))
a.close()
b.recv()
: StreamAborted: pipe: the other end gave up in the middle of a message, or before the connection was
    accepted

l = mmapipc.connection.Listener(name)
child("c = mmapipc.connection.Client(name)")
a = l.accept()
other.kill()
a.recv()
: SenderDied: NAME: the process at the other end (pid PID) was killed, or ended without closing the
    connection

l = mmapipc.connection.Listener(name)
child("c = mmapipc.connection.Client(name)")
a = l.accept()
other.kill()
a.send(1)
: ReceiverGone: NAME: the process at the other end (pid PID) was killed, or ended without closing the
    connection
"""

ASYNCIO = r"""
await mmapipc.aio.open_receiver(name, timeout=0)
: ChannelTimeout: NAME: no sender came within 0 s; start one or wait longer

await mmapipc.aio.open_sender(name, capacity=0)
: InvalidCapacity: NAME: the capacity must be from 1 to 2**62 bytes, not 0

s = await mmapipc.aio.open_sender(name, timeout=0)
await s.write(b"1")
await s.close()
: ChannelTimeout: NAME: no receiver came within 0 s; 1 byte was not delivered

s = await mmapipc.aio.open_sender(name, timeout=0.01, capacity=4)
await s.write(b"12345")
: ChannelTimeout: NAME: no receiver came within 0.01 s; 4 bytes were not delivered

s = await mmapipc.aio.open_sender(name, timeout=0.01, capacity=4)
with failing: await s.write(b"12345")
await s.close()
: StreamAborted: NAME: an earlier write failed, so the stream was given up and not finished

s = await mmapipc.aio.open_sender(name)
s.abort()
await s.write(b"1")
: ValueError: NAME: I/O operation on closed channel

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name, timeout=0)
await r.read(1)
: ChannelTimeout: NAME: the sender sent nothing for 0 s

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name)
s.abort()
await r.readline()
: StreamAborted: NAME: the sender gave up; the stream is not whole: it stops after 0 bytes

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name)
await s.write(b"123")
await r.close()
await s.close()
: ReceiverLeft: NAME: the receiver left early; 3 bytes were not delivered

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name)
await r.readexactly(-1)
: ValueError: NAME: readexactly() needs 0 bytes or more, not -1

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name)
await r.readuntil(b"")
: ValueError: NAME: readuntil() needs a separator of at least 1 byte

s = await mmapipc.aio.open_sender(name)
r = await mmapipc.aio.open_receiver(name)
await asyncio.gather(r.read(1), r.read(1))
: RuntimeError: NAME: another task reads from this end; let one read at a time
"""


class Messages(ChannelTest):
    def test_ends(self):
        self.check(ENDS)

    def test_files(self):
        self.check(FILES)

    def test_mappings(self):
        self.check(MAPPINGS)

    def test_connections(self):
        self.check(CONNECTIONS)

    def test_asyncio(self):
        self.check(ASYNCIO)

    def check(self, rows: str) -> None:
        """Each row's code provokes its message."""
        self.addCleanup(gc.collect)  # a closed connection keeps its descriptors until then
        for row in rows.strip().split("\n\n"):
            code, *messages = re.split(r"^(?:on Windows)?: ", row, flags=re.MULTILINE)
            wanted = messages[-1 if WINDOWS else 0].strip().replace("\n    ", " ")
            if wanted != "cannot be":
                with self.subTest(code=code):
                    self.assertEqual(self.part().told(code), wanted)

    def told(self, code: str) -> str:
        """The last line of the code's traceback, with words for what changes."""
        path = str(self.folder / "file")
        children: list[Child] = []

        def child(code: str) -> None:
            """Run it in another process, which stays."""
            code = f"import mmapipc.connection; {code}\nsay('ready'); sys.stdin.read()"
            other = self.python(code, stdin=subprocess.PIPE)
            self.assertEqual(other.line(), "ready")
            variables["other"] = other
            children.append(other)

        variables: dict[str, Any] = {module.__name__: module for module in (asyncio, mmapipc, os, pickle)}
        variables.update(name=self.name, path=path, child=child, failing=contextlib.suppress(Exception))
        text = "no error"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                run(code, variables, children)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
        for known, word in (
            (path, "FILE"),
            (str(self.folder), "FOLDER"),
            (self.name, "NAME"),
            (f"{threading.TIMEOUT_MAX:.0f}", "LONGEST"),
            (f" {mmap.ALLOCATIONGRANULARITY} ", " GRANULE "),
            (f"FILE{os.sep}", "FILE/"),
        ):
            text = text.replace(known, word)
        for pid in (os.getpid(), *(other.pid for other in children)):
            text = re.sub(rf"\bpid {pid}\b", "pid PID", text)
        return text


class Help(unittest.TestCase):
    def test_an_exception_shows_only_what_is_its_own(self):
        kinds = {
            name for name, value in vars(mmapipc.errors).items() if inspect.isclass(value) and name[0] != "_"
        }
        self.assertEqual(set(mmapipc.errors.__all__), kinds)
        for name in mmapipc.errors.__all__:
            shown = pydoc.plain(pydoc.render_doc(getattr(mmapipc.errors, name)))
            self.assertNotIn("with_traceback", shown)
            self.assertNotIn("inherited from builtins", shown)

    def test_all_that_looks_public_is_described(self):
        for module in (mmapipc, mmapipc.aio, mmapipc.connection, mmapipc.errors, mmapipc.files):
            for name in getattr(
                module, "__all__", ("BufferedReceiver", "BufferedSender", "TextReceiver", "TextSender")
            ):
                shown = getattr(module, name)
                self.assertTrue(inspect.getdoc(shown), name)
                for kind in inspect.getmro(shown) if isinstance(shown, type) else ():
                    if kind.__module__.startswith("mmapipc."):
                        for member, value in vars(kind).items():
                            if not member.startswith("_") and (
                                callable(value) or isinstance(value, property)
                            ):
                                self.assertTrue(value.__doc__, f"{kind}.{member}")


def run(code: str, variables: dict[str, Any], children: list[Child]) -> None:
    """Run the code, which may await; then end what it has begun."""

    def end() -> None:
        for other in children:
            other.end()
        for each in reversed(list(variables.values())):
            for close in ("abort", "release", "close"):
                if hasattr(each, close) and not isinstance(each, types.ModuleType):
                    getattr(each, close)()
                    break

    async def awaited() -> None:
        try:
            await eval(compiled, variables)
        finally:
            end()

    compiled = compile(code, "row", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(awaited())
        return
    try:
        exec(compiled, variables)
    finally:
        end()
