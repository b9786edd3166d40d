"""Train a model: the training run, its steps and metrics, and finding runs by name."""
