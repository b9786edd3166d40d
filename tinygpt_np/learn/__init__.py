"""Exercises in which each line of a backward is written by hand and checked."""
