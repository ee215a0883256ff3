"""Word count by a Counter for each batch, as multiprocessing_count.py does it."""

from collections import Counter


def map_batch(key, values):
    return Counter("\n".join(values).split())


def reduce(key, values):
    return sum(values)
