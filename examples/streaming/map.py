#!/usr/bin/env python3
"""Writes each word of its input with a one."""
import sys

for line in sys.stdin:
    for word in line.split():
        print(word + "\t1")
