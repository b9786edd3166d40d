"""Check a hand-written backward line by line and show it next to its forward.

source/ parses the functions and runs them one statement at a time; proof/ measures the
expected gradients and checks each line; render/ shows the result. README.md explains how to use it.
"""
