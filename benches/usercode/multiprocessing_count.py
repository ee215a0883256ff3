"""Word count with multiprocessing: a Counter for each MiB of text, which the parent merges. INPUT OUTPUT PROCESSES"""

import os
import sys
from collections import Counter
from multiprocessing import Pool

BATCH = 1 << 20


def count(part):
    path, start, end = part
    with open(path, "rb") as file:
        if start:
            # A line belongs to the part that it begins in.
            file.seek(start - 1)
            file.readline()
        start = file.tell()
        if start >= end:
            return Counter()
        data = file.read(end - start - 1) + file.readline()
    return Counter(data.decode("utf-8", "surrogateescape").split())


def main(path, out, processes):
    size = os.path.getsize(path)
    parts = [(path, at, min(at + BATCH, size)) for at in range(0, size, BATCH)]
    total = Counter()
    with Pool(processes) as pool:
        for counted in pool.imap_unordered(count, parts):
            total.update(counted)
    with open(out, "w", errors="surrogateescape") as file:
        for word in sorted(total):
            file.write(f"{word}\t{total[word]}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
