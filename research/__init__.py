"""What design choices are worth and what the library costs: training recipes in `recipes.toml`, and `benchmarks`."""

import os

# A thread that waits for another shall sleep: by default it spins, and on a busy machine most of a run's processor
# time, which is what counts here, would go into that. It is read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
