"""The work that whole-model benchmarks time, and our side of it; experiments.py compares."""
