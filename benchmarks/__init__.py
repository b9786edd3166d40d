"""Benchmarks: how fast the kernels, training and sampling are, and compared with what.

Run from a clone as ``python -m benchmarks COMMAND``; see README.md.

kernels.py      the ladders; products.py: the matmuls of training
clock.py        how kernels are timed, against a plain C program and timeit
campaign.py     whether the verdicts of many runs agree, also next to busy processes
experiments.py  training step, attention, sampling, generation; tokenizers.py: bits per character
cases/          what kernels compute: inputs, float64 truth, error bounds, FLOPs and bytes
ladders/        kernels, one idea per rung, from loops in Python to the kernel used in training
models/         whole-model work as jobs, on our side
cpus.py         who uses the CPUs, and what sets their speed; machine.py: other facts for results
peers/          other libraries: PyTorch, transformers, llm.c, NumPy
harness/        worker processes, gate, rounds, statistics, result files, tables, pages
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
