"""Word count by a pair for each word with mrjob (PyPI: mrjob, setuptools)."""

from mrjob.job import MRJob


class Count(MRJob):
    def mapper(self, _, line):
        for word in line.split():
            yield word, 1

    def reducer(self, key, values):
        yield key, sum(values)


if __name__ == "__main__":
    Count.run()
