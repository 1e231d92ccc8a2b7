"""How fast the library is, beside a plain implementation of the same method: `python -m research.benchmarks --help`."""
