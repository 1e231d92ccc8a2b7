"""Self-supervised depth, taught: one module for each notebook. Start with README.md and notebooks/01."""
