"""How fast it is, and against what: each benchmark runs from a clone, `python -m benchmarks …`.

__main__.py      the commands and their flags
machine.py       on what it was measured
worker.py        a process that works when it is told to; workers.py is the end that tells
summary.py       medians, ratios and their intervals

Ladders of kernels:
kernels.py       what is asked for, task by task; kernels_table.py shows it
tasks/           what kernels are asked to do: inputs, truth, bounds, cost
ladders/         the kernels, from what anyone would write first to what training uses
bench.py         inside a worker: rungs are opened at the gate (gate.py) and take their turns
climb.py         one task: who gets in, and the rounds
limits.py        what bounds a kernel: multiply-adds a second (peak.py), bytes a second, BLAS
standing.py      gains, verdicts, and how near to the limit
asm.py           how much of a kernel is vector instructions; compiles.py, how long compiling took
page.py          the page, page_task.py a task on it, roofline.py its picture
compare.py       what is slower than in a run of before, beyond the noise (noise.py)

Contests against others, with the same rounds of turns:
train.py         the training step against PyTorch's
attention.py     causal attention, forward and backward, against PyTorch's
sample.py        generating text, against reading the window anew and against PyTorch
matmul.py        our matrix product against NumPy's, over those of the training steps
contest.py       runs them; rounds.py lets the workers take turns; report.py shows what came out
works.py         what is trained, and how many FLOPs that takes
ours.py          our side of it; peers/ has the others', also for the ladders
"""
