"""Measure the expected gradients and check each line of a backward."""
