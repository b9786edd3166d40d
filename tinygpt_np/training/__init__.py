"""Training: a run and its steps, its metrics, and runs and models found by name."""
