"""How fast it is, and against what: each benchmark runs from a clone, `python -m benchmarks …`.

__main__.py      the commands and their flags
train.py         the training step against PyTorch's
attention.py     causal attention, forward and backward, against PyTorch's
matmul.py        our matrix product against NumPy's, over those of the training steps
sample.py        generating text, against reading the window anew and against PyTorch
works.py         what is trained, and how many FLOPs that takes
ours.py          our side of it; peers/ has the others'
peak.py          the most FLOPs a second that this machine does, as the limit to hold it against
worker.py        a process that works when it is told to; workers.py is the end that tells
rounds.py        lets the workers take turns
summary.py       medians, ratios and their intervals
report.py        shows it, as a table and as JSON
machine.py       on what it was measured
"""
