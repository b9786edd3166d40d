"""Benchmarks: how fast the kernels, training and sampling are, and compared with what.

Run from a clone as ``python -m benchmarks COMMAND``; see README.md.

kernels.py      the ladders of kernels: plan.py, what is asked for; candidates.py, who takes turns;
                estimates.py, what a case takes; products.py, the matmuls of training
campaign.py     whether the verdicts of many runs agree, also next to busy processes
clock.py        the clock of the kernels, against a plain C program and timeit
experiments.py  training step, attention, sampling, generation; tokenizers.py: bits per character
scaling.py      a training step on many machines: network.py, the model; two_ranks.py, its check
machine.py      facts about the machine; cpus.py: who uses the CPUs, and what sets their speed

cases/          what kernels compute: sizes, inputs, float64 truth, error bounds, FLOPs and bytes
ladders/        kernels, one idea per rung, from loops in Python to the kernel used in training
mine/           kernels that users bring
models/         whole-model work as jobs, on our side
peers/          other libraries: PyTorch, transformers, llm.c, NumPy
worker/         what worker processes do: gate, clock, limits of the machine, machine code
harness/        processes take turns in rounds; statistics, verdicts, result files
render/         tables, pages, plots
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
