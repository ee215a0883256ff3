"""Runs the functions of a job: tasks in on one stream, what they make out on another.

A frame is its length in 32 bits, little-endian, a letter for its kind, and that many bytes.
In:  T task (JSON), L lines, R records (each behind its length), G groups (a list of keys with lists of values), H groups whose
     values come in pieces (a list, or bytes that are a pickled list), B V E a group in several frames, F the end of a task.
Out: I what the file has (JSON), P pairs (the part in 32 bits, then a dict of keys to values), Q the same with pickled values,
     O lines of the output, A a frame of input was dealt with, K work goes on, D a task was done (JSON), X the job's code
     failed (JSON).
What is no JSON is in the format of the module marshal, version 2.
"""

import builtins
import codecs
import gc
import inspect
import json
import marshal
import os
import pickle
import struct
import sys
import threading
import time
import traceback
import types
from collections import defaultdict
from itertools import chain

HEAD = struct.Struct("<IB")
HASH = struct.pack("<I", 0xFFFFFFFF)
# Pairs that are held before they are handed on, of which there are fewer at first; bytes that are handed on at a time.
PAIRS, FIRST = 200_000, 10_000
WANTED = 4 << 20
BYTES = 256 << 10
# The counters that there are numbers for.
MOST = 2**63 - 1
# What marshal takes as it is. Of others it would make bytes of some without a word.
PLAIN = {int, str, float, bool, bytes, type(None)}
# Seconds between two signs of life, if there is any.
ALIVE = 1.0


class Wrong(Exception):
    """What the job's code returned is nothing that can be used."""


def as_bytes(error):
    """Bytes that were no text come out as they came in, and halves of characters as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    parts = (bytes([ord(c) & 0xFF]) if 0xDC80 <= ord(c) <= 0xDCFF else c.encode("utf-8", "surrogatepass") for c in text)
    return b"".join(parts), error.end


def as_escapes(error):
    """In JSON that others read, such halves are spelled out."""
    text = error.object[error.start : error.end]
    return "".join(f"\\\\u{ord(c):04x}" for c in text), error.end


codecs.register_error("gristmill", as_bytes)
codecs.register_error("gristmill-json", as_escapes)


class Streams:
    """Both ends of the pipe, apart from what the job's code reads and writes."""

    def __init__(self):
        self.input = os.fdopen(os.dup(0), "rb", 1 << 20)
        self.output, self.lock = os.dup(1), threading.Lock()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        # What the code prints is for people.
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)

    def read(self):
        head = self.input.read(HEAD.size)
        if len(head) < HEAD.size:
            # Whoever gives tasks is gone.
            os._exit(0)
        length, kind = HEAD.unpack(head)
        payload = self.input.read(length)
        if len(payload) < length:
            os._exit(0)
        return chr(kind), payload

    def write(self, kind, *payload):
        length = sum(map(len, payload))
        data = memoryview(b"".join((HEAD.pack(length, ord(kind)), *payload)))
        with self.lock:
            while data:
                data = data[os.write(self.output, data) :]

    def live(self, progress):
        """Says now and then that work goes on, if it does."""

        def tell():
            before = None
            while True:
                time.sleep(ALIVE)
                now = progress()
                if now is not None and now != before:
                    self.write("K")
                before = now

        threading.Thread(target=tell, daemon=True).start()


class Job:
    """The functions of a file, under their names of today."""

    def __init__(self, path):
        name = os.path.basename(path)
        stem = (name[:-3] if name.endswith(".py") else name).replace(".", "_")
        while stem in sys.modules:
            stem += "_"
        with open(path, "rb") as file:
            code = compile(file.read(), name, "exec")
        module = types.ModuleType(stem)
        module.__file__ = path
        # Pickled values name their classes by it.
        sys.modules[stem] = module
        exec(code, module.__dict__)
        self.map_batch = self.find(module, "map_batch")
        self.map = self.find(module, "map", "map_function", "mapper")
        self.combine = self.find(module, "combine", "combine_function", "combiner")
        self.reduce = self.find(module, "reduce", "reduce_function", "reducer")
        self.partition = self.find(module, "partition", "partition_function", "partitioner")
        self.shuffle = self.find(module, "shuffle_function")
        if not (self.map or self.map_batch):
            raise Wrong(f"{name} has no function map(key, value)")
        self.map = self.map and with_two(self.map, lambda map_, key, value: map_(value))
        self.reduce = self.reduce and with_two(self.reduce, lambda reduce, key, values: reduce((key, values)))
        setup = self.find(module, "setup")
        if setup:
            setup()

    @staticmethod
    def find(module, *names):
        for name in names:
            found = module.__dict__.get(name)
            # Python's own, as functools.reduce, were imported to be used.
            if callable(found) and not isinstance(found, types.BuiltinFunctionType) and found not in BUILTINS:
                return found
        return None


BUILTINS = {one for one in vars(builtins).values() if isinstance(one, type)}


def with_two(function, other):
    """A function of two arguments; older files have some of one, which `other` calls."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return function
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    needed = sum(p.default is p.empty for p in positional)
    if positional and needed <= 1 and not takes_any and (needed or len(positional) == 1):
        return lambda key, value: other(function, key, value)
    return function


def pairs_of(made, what):
    """What a function made, as pairs."""
    if isinstance(made, dict):
        return made.items()
    if isinstance(made, tuple) and len(made) == 2 and not all(isinstance(one, (tuple, list)) for one in made):
        return (made,)
    if isinstance(made, (str, bytes)) or isinstance(made, (list, tuple)) and made and isinstance(made[0], (str, bytes)):
        # Of two letters it would pass for a pair.
        raise Wrong(f"{what} must return or yield pairs of a key and a value, not {shown(made)}")
    try:
        return iter(made)
    except TypeError:
        raise Wrong(f"{what} must return or yield pairs of a key and a value, not {shown(made)}") from None


def is_pair(made):
    return isinstance(made, tuple) and len(made) == 2


def outputs(key, made):
    """What came of a group, as pairs: pairs as they are, and anything else as a value of the group's key."""
    if made is None:
        return
    if is_pair(made):
        yield made
    elif hasattr(made, "__next__"):
        for one in made:
            yield one if is_pair(one) else (key, one)
    else:
        yield key, list(made) if isinstance(made, Once) else made


def combined_values(key, values, made):
    """What a combiner made, as values of the key. They are of the shape of those that it was given: a pair of the key and such
    a value is that value."""
    if made is None:
        return
    pairs_in = is_pair(values[0])
    for one in made if hasattr(made, "__next__") else (made,):
        if not is_pair(one):
            yield one
        elif one[0] == key and (is_pair(one[1]) or not pairs_in):
            yield one[1]
        elif pairs_in:
            yield one
        else:
            raise Wrong(f"combine must keep the key, and made {shown(one)} of it")


class Once:
    """Values of a group that is too large to be held."""

    def __init__(self, values):
        self.values, self.begun = values, False

    def __iter__(self):
        if self.begun:
            raise Wrong("the values of a large group go by once: take what is needed of them in one loop")
        self.begun = True
        return self.values

    def __len__(self):
        raise Wrong("the values of a large group are not counted: count them as they go by")


def plain_key(key):
    """A key as one of the types that can be sorted and sent."""
    kind = type(key)
    if kind in PLAIN:
        return key
    if kind is tuple:
        return tuple(map(plain_key, key))
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return bytes(key)
    if isinstance(key, tuple):
        return tuple(map(plain_key, key))
    if isinstance(key, float):
        return float(key)
    if hasattr(key, "__index__"):
        return key.__index__()
    raise Wrong(f"keys are str, bytes, int, float, None or tuples of these, not {kind.__name__}: {shown(key)}")


def shown(value, most=200):
    try:
        text = repr(value)
    except Exception:  # The job's own class.
        text = object.__repr__(value)
    return text if len(text) <= most else text[:most] + "..."


def field(value):
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, (tuple, list, dict)):
        try:
            return json.dumps(value, ensure_ascii=False, default=text_of)
        except (TypeError, ValueError):
            return repr(value)
    return str(value)


def text_of(value):
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "surrogateescape")
    raise TypeError


def line(key, value):
    """A line of the output: key, tab, value; one of them alone where the other is None."""
    if value is None:
        return ("" if key is None else field(key)) + "\n"
    if key is None:
        return field(value) + "\n"
    return f"{field(key)}\t{field(value)}\n"


class Task:
    """One task: what it is, and what it has made so far."""

    def __init__(self, job, streams, told):
        self.job, self.streams = job, streams
        self.name, self.parts, self.map_only = told["name"], told["parts"], told["map_only"]
        self.groups, self.n, self.most = defaultdict(list), 0, FIRST
        self.lines, self.bytes = [], 0
        # Bytes of input before the frame at hand, and what is at work on.
        self.before, self.records, self.data, self.left, self.at = 0, None, b"", None, None

    # Mapping.

    def map_lines(self, data):
        text = data.decode("utf-8", "surrogateescape")
        values = text.split("\n")
        if not values[-1]:
            values.pop()
        if "\r" in text:
            values = [value[:-1] if value.endswith("\r") else value for value in values]
        self.records, self.data = None, data
        self.map_values(values)

    def map_records(self, data):
        values, at, starts = [], 0, []
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            starts.append(at)
            values.append(data[at + 4 : at + 4 + length].decode("utf-8", "surrogateescape"))
            at += 4 + length
        self.records, self.data = starts, data
        self.map_values(values)

    def map_values(self, values):
        job, name = self.job, self.name
        if job.map_batch:
            self.left = None
            made = job.map_batch(name, values)
            self.add(() if made is None else pairs_of(made, "map_batch"))
        elif job.shuffle and not self.map_only:
            self.shuffled(values)
        else:
            self.each(values)
        self.flush()
        self.before += len(self.data)
        self.at = None

    def each(self, values):
        map_, name, groups = self.job.map, self.name, self.groups
        self.left = left = iter(values)
        n = 0
        for value in left:
            self.at = value
            made = map_(name, value)
            if made is None:
                continue
            if made.__class__ is not types.GeneratorType:
                made = pairs_of(made, "map")
            if self.map_only:
                self.write(made)
                continue
            for k, v in made:
                groups[k].append(v)
                n += 1
            if n > self.most:
                n = 0
                self.flush()
                groups = self.groups

    def add(self, pairs):
        if self.map_only:
            return self.write(pairs)
        for k, v in pairs:
            self.groups[k].append(v)
            self.n += 1
            if self.n > self.most:
                self.flush()

    def shuffled(self, values):
        """As older files want it: all pairs of a batch go through their own grouping."""
        map_, name, all_ = self.job.map, self.name, []
        self.left = iter(values)
        for value in self.left:
            self.at = value
            made = map_(name, value)
            all_.extend(() if made is None else pairs_of(made, "map_function"))
        for k, of_key in pairs_of(self.job.shuffle(all_) or (), "shuffle_function"):
            of_key = of_key if isinstance(of_key, (list, tuple)) else [of_key]
            self.groups[k].extend(of_key)

    def flush(self):
        """Hands on what was mapped."""
        groups, self.groups, self.n = self.groups, defaultdict(list), 0
        if not groups:
            return self.write_out()
        # What fails here came of any record of the batch.
        left, self.left, self.at = self.left, None, None
        combine = self.job.combine
        if combine:
            combined = {}
            for key, values in groups.items():
                self.at = key
                values = list(combined_values(key, values, combine(key, values)))
                if values:
                    combined[key] = values
            groups = combined
        if not set(map(type, groups)) <= PLAIN:
            plain = defaultdict(list)
            for key, values in groups.items():
                self.at = key
                plain[plain_key(key)].extend(values)
            groups = plain
        self.part(groups)
        self.left, self.at = left, None

    def part(self, groups):
        """Hands on groups, each part's by itself if the job says which these are."""
        partition = self.job.partition
        if not partition or self.parts < 2:
            return self.send(HASH, groups)
        parts = {}
        for key, values in groups.items():
            self.at = key
            part = partition(key, self.parts)
            if type(part) is not int or not 0 <= part < self.parts:
                raise Wrong(f"partition must return a number from 0 to {self.parts - 1}, not {shown(part)}")
            parts.setdefault(part, {})[key] = values
        for part, groups in parts.items():
            self.send(struct.pack("<I", part), groups)

    def send(self, part, groups):
        kind, n = "P", sum(map(len, groups.values()))
        if not set(map(type, chain.from_iterable(groups.values()))) <= PLAIN:
            kind, pickled = "Q", {}
            for key, values in groups.items():
                self.at = key
                try:
                    pickled[key] = pickle.dumps(values, 5)
                except Exception as error:
                    raise Wrong(f"a value cannot be pickled: {error}") from error
            groups = pickled
        payload = marshal.dumps(dict(groups), 2)
        self.most = max(1, min(PAIRS, n * WANTED // len(payload)))
        self.streams.write(kind, part, payload)

    # Reducing.

    def reduce_groups(self, groups):
        for key, values in groups:
            self.reduce(key, values)

    def reduce_pieces(self, groups):
        for key, pieces in groups:
            self.reduce(key, list(unpacked(pieces)))

    def reduce_stream(self, key, pieces):
        """A group that comes in several frames."""

        def values():
            yield from unpacked(pieces)
            while True:
                kind, payload = self.streams.read()
                if kind == "E":
                    return
                yield from unpacked(marshal.loads(payload))

        values = values()
        self.reduce(key, Once(values))
        for _ in values:
            pass

    def reduce(self, key, values):
        self.at = key
        reduce = self.job.reduce
        if reduce:
            self.write(outputs(key, reduce(key, values)))
        else:
            self.write((key, value) for value in values)

    def write(self, pairs):
        for key, value in pairs:
            made = line(key, value)
            self.lines.append(made)
            self.bytes += len(made)
            self.n += 1
            if self.bytes > BYTES:
                self.write_out()

    def write_out(self):
        if self.lines:
            self.streams.write("O", "".join(self.lines).encode("utf-8", "gristmill"))
            self.lines, self.bytes = [], 0

    def progress(self):
        """Something else whenever a record or a group was dealt with."""
        return self.before, self.n, id(self.at), self.left and self.left.__length_hint__()

    # Failing.

    def done(self):
        """Bytes of input before the record that was being mapped."""
        if self.left is None:
            return self.before
        left = self.left.__length_hint__()
        if self.records is not None:
            index = len(self.records) - left - 1
            return self.before + (self.records[index] if 0 <= index < len(self.records) else 0)
        lines = self.data.count(b"\n") + (not self.data.endswith(b"\n"))
        at = 0
        for _ in range(lines - left - 1):
            at = self.data.find(b"\n", at) + 1
        return self.before + at


def unpacked(pieces):
    for piece in pieces:
        yield from pickle.loads(piece) if type(piece) is bytes else piece


def without_ours(told):
    """A traceback and those that it came of, without the frames of this file."""
    seen = set()
    while told is not None and id(told) not in seen:
        seen.add(id(told))
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename != __file__])
        told = told.__cause__ or told.__context__


def told(error, name, task):
    """What is told of an error in a file."""
    whole = traceback.TracebackException.from_exception(error)
    without_ours(whole)
    frames, words = whole.stack, []
    what = str(error)
    if not isinstance(error, Wrong):
        last = list(whole.format_exception_only())
        lines = (last[-1] if isinstance(error, SyntaxError) else last[0]).strip().splitlines()
        what = lines[0] if lines else type(error).__name__
        if not frames and isinstance(error, (TypeError, ValueError)) and ("unpack" in what or "unhashable" in what):
            # What was returned failed here.
            what = f"a pair of a key that can be hashed and a value is wanted: {error}"
        else:
            words = "".join(whole.format()).splitlines()[-40:]
    ours = [frame for frame in frames if frame.filename == name]
    if ours:
        what += f" ({name}, line {ours[-1].lineno}, in {ours[-1].name})"
    if task and task.at is not None:
        what += f", at {shown(task.at)}"
    return {"what": what, "words": words, "done": task.done() if task else 0}


def as_json(value):
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "gristmill-json")


def counters_module(counts):
    """What the job's code can import to say something."""
    module = types.ModuleType("gristmill", "Counters and status of a job.")

    def counter(group, name, amount=1):
        """Add to a counter. It counts once the task has succeeded."""
        name = f"{group}:{name}".encode("utf-8", "backslashreplace").decode()
        counts[name] = max(-MOST, min(MOST, counts[name] + int(amount)))

    def status(text):
        """Say how far the task is."""
        sys.stderr.write("reporter:status:" + str(text).replace("\n", " ") + "\n")
        sys.stderr.flush()

    module.counter, module.status = counter, status
    sys.modules["gristmill"] = module


class Again(Streams):
    """Shows what a task makes instead of handing it on."""

    def write(self, kind, *payload):
        payload = b"".join(payload)
        text = payload.decode("utf-8", "surrogateescape") if kind in "OX" else ""
        if kind in "PQ":
            for key, values in marshal.loads(payload[4:]).items():
                for value in pickle.loads(values) if kind == "Q" else values:
                    text += f"{key!r}\t{value!r}\n"
        elif kind == "X":
            told = json.loads(text)
            sys.stderr.write("\n".join(told["words"] + [told["what"]]) + "\n")
            return
        data = text.encode("utf-8", "surrogateescape")
        while data:
            data = data[os.write(self.output, data) :]


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # The code closed it.
            pass


def main(path):
    streams = Again() if os.environ.get("GRISTMILL_AGAIN") else Streams()
    counts = defaultdict(int)
    counters_module(counts)
    sys.path.insert(0, os.path.dirname(path))
    site = os.path.join(os.path.dirname(path), ".wheels")
    if os.path.isdir(site):
        sys.path.insert(1, site)
    job = task = None
    pid = os.getpid()
    try:
        job = Job(path)
        # Many small objects live for as long as a batch and in no cycle.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        streams.live(lambda: task and task.progress())
        streams.write("I", as_json({"reduces": bool(job.reduce)}))
        while True:
            kind, payload = streams.read()
            if kind == "T":
                task = Task(job, streams, json.loads(payload))
                continue
            if kind == "L":
                task.map_lines(payload)
            elif kind == "R":
                task.map_records(payload)
            elif kind == "G":
                task.reduce_groups(marshal.loads(payload))
            elif kind == "H":
                task.reduce_pieces(marshal.loads(payload))
            elif kind == "B":
                task.reduce_stream(*marshal.loads(payload))
            elif kind == "F":
                task.write_out()
                flush()
                streams.write("D", as_json(counts))
                counts.clear()
                task = None
                continue
            streams.write("A")
    except BaseException as error:
        flush()
        if os.getpid() != pid:
            # A child that the code began ends as it would elsewhere.
            code = error.code if isinstance(error, SystemExit) else 1
            os._exit(code if isinstance(code, int) else 0 if code is None else 1)
        streams.write("X", as_json(told(error, os.path.basename(path), task)))
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
