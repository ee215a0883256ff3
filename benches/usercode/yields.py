"""Word count by a pair for each word, as mrjob_count.py does it."""


def map(key, value):
    for word in value.split():
        yield word, 1


def reduce(key, values):
    return sum(values)
