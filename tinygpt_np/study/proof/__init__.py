"""Measure what each gradient should be and judge each line of a backward."""
