"""How fast the library is, tuned beside plain and beside another checkout: `python -m research.benchmarks --help`."""
