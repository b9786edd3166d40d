"""The harness: every benchmark runs its candidates in worker processes that take turns in rounds.

In the worker processes:

worker.py        a process that answers requests, and the handle of it in the parent process
jobs.py          timed steps; a job (a training step, a sampled token, …) as one
rungs.py         the rungs of a ladder as timed steps, each checked by gate.py; compile times
limits.py        loops that measure peak FLOP/s and bandwidth
asm.py           the fraction of vector instructions

In the parent process:

rounds.py        candidates take turns, interleaved in rounds
analysis.py      medians, gains, verdicts against the A/A control, fraction of the limit
session.py       one run: progress, tables as they are done, the result file at the end
figures.py       the result file; compare.py: two result files
report.py        tables; page.py and roofline.py: the HTML page
"""
