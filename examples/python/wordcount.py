"""Count words: gristmill run python examples/python/wordcount.py examples/books -o out"""


def map(key, value):
    for word in value.split():
        yield word, 1


def combine(key, values):
    return sum(values)


def reduce(key, values):
    return sum(values)
