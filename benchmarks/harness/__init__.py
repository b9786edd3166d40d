"""The harness in the parent process: candidates take turns in worker processes, in rounds.

process.py       worker processes and their forks, and how to ask them
rounds.py        candidates take turns, interleaved in rounds
analysis.py      medians, gains, verdicts against the A/A control, fraction of the limit
session.py       one run: progress, tables as they are done, the result file at the end
figures.py       the result file
compare.py       two result files
"""
