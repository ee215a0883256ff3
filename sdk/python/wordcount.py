"""Words and how often they are there."""

from gristmill_guest import app


def words(line):
    for word in line.split():
        yield word, b"1"


def total(key, values):
    yield b"%d" % sum(int(value) for value in values)


def counted(key, values):
    for n in total(key, values):
        yield key + b"\t" + n


WitWorld = app(words, counted, combine=total)
