"""What design choices are worth and what the library costs: training recipes in `recipes.toml`, and `benchmarks`."""
