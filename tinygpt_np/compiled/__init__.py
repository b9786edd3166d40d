"""The training step and decoding, compiled with Numba."""
