"""The harness in the parent process: candidates take turns in worker processes, in rounds.

limits.py        the limits of the machine
process.py       worker processes and their forks, and how to ask them
rounds.py        candidates take turns, interleaved in rounds
analysis.py      medians, gains, fraction of the limit
verdicts.py      which gains are real, against the A/A controls
session.py       one run: progress, tables as they are done, the result file at the end
figures.py       the result file
compare.py       two result files
"""
