"""What design choices are worth and what the library costs: training recipes in `recipes.toml`, and `benchmarks`."""

import os

# A waiting thread must sleep. By default it spins, and on a busy machine most of a run's processor time, which is its
# budget here, would go into spinning. torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
