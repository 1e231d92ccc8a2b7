"""How fast the library is, beside its plain code and another checkout: `python -m research.benchmarks --help`."""
