"""Apps for Gristmill as WebAssembly, in Python: functions of records, keys and values, which are bytes.

    from gristmill_guest import app

    def map(line):
        for word in line.split():
            yield word, b"1"

    def reduce(key, values):
        yield key + b"\t%d" % sum(int(value) for value in values)

    WitWorld = app(map, reduce)

componentize-py makes a component of it (docs/wasm.md). The world is gristmill:app/app.
"""

import struct
import traceback

import wit_world
from componentize_py_types import Err

HEAD = struct.Struct("<II")
LENGTH = struct.Struct("<I")


def unpack(pairs):
    """The keys and values of packed pairs."""
    at = 0
    while at < len(pairs):
        key, value = HEAD.unpack_from(pairs, at)
        at += 8 + key
        yield pairs[at - key:at], pairs[at:at + value]
        at += value


def pack(pairs):
    """Pairs of keys and values, packed."""
    return b"".join(HEAD.pack(len(key), len(value)) + key + value for key, value in pairs)


def groups(pairs):
    """Keys with the lists of their values, of pairs whose equal keys stand together."""
    last, values = None, []
    for key, value in unpack(pairs):
        if key != last:
            if last is not None:
                yield last, values
            last, values = key, []
        values.append(value)
    if last is not None:
        yield last, values


def records(batch, lines):
    """The records of a batch."""
    if lines:
        yield from batch.splitlines()
        return
    at = 0
    while at < len(batch):
        (n,) = LENGTH.unpack_from(batch, at)
        yield batch[at + 4:at + 4 + n]
        at += 4 + n


class Task:
    """What one task remembers between calls. A task is an instance of its own, so that there is one of these."""

    lines = True
    reduces = False
    # Pairs of a key that goes on in the next call.
    rest = b""


def told(f, *args):
    """Calls a function; what it raises fails the task, with the last line of it and where it was."""
    try:
        return f(*args)
    except Err:
        raise
    except BaseException as e:
        place = traceback.extract_tb(e.__traceback__)[-1]
        raise Err(f"{type(e).__name__}: {e} ({place.filename}, line {place.lineno}, in {place.name})") from e


def app(map, reduce=None, combine=None, setup=None):
    """The app of functions.

    map(record) yields pairs; reduce(key, values) yields lines, without it pairs are written as they are; combine(key, values)
    yields values before they are shuffled; setup() is called once in each task.
    """

    def mapped(batch):
        return pack(pair for record in records(batch, Task.lines) for pair in map(record) or ())

    def combined(pairs):
        if combine is None:
            return pairs
        return pack((key, value) for key, values in groups(pairs) for value in combine(key, values))

    def reduced(pairs, more):
        pairs = Task.rest + pairs
        all = list(groups(pairs))
        Task.rest = b""
        if more and all:
            key, values = all.pop()
            Task.rest = pack((key, value) for value in values)
        if reduce is None:
            return b"".join(key + b"\t" + value + b"\n" for key, values in all for value in values)
        return b"".join(line + b"\n" for key, values in all for line in reduce(key, values) or ())

    def begun(stage, records):
        Task.lines, Task.reduces = records == "lines", stage == "reduce"
        if setup is not None:
            setup()

    class WitWorld(wit_world.WitWorld):
        def begin(self, stage, input, records):
            told(begun, stage, records)

        def map(self, batch):
            return told(mapped, batch)

        def combine(self, pairs):
            return told(combined, pairs)

        def reduce(self, pairs, more):
            return told(reduced, pairs, more)

        def finish(self):
            return told(reduced, b"", False) if Task.reduces else b""

    return WitWorld
