"""In which files a word is, and in how many lines of each: gristmill run python examples/python/index.py examples/books -o out"""

from collections import Counter


def map_batch(name, lines):
    # A batch of lines at a time: the loop over words is then Python's own, in C.
    words = Counter(word for line in lines for word in set(line.lower().split()))
    for word, n in words.items():
        yield word, (name, n)


def reduce(word, values):
    lines = Counter()
    for name, n in values:
        lines[name] += n
    return ", ".join(f"{name} ({n})" for name, n in sorted(lines.items()))
