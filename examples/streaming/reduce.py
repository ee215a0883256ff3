#!/usr/bin/env python3
"""Sums the numbers of each word. Lines of one word stand together."""
import sys
from itertools import groupby

pairs = (line.rstrip("\n").split("\t", 1) for line in sys.stdin)
for word, group in groupby(pairs, key=lambda pair: pair[0]):
    print("%s\t%d" % (word, sum(int(count) for _, count in group)))
