"""Benchmarks: how fast the kernels, training and sampling are, and compared with what.

Run from a clone as ``python -m benchmarks COMMAND``; see README.md.

cases/      what a kernel is asked to compute: inputs, float64 truth, error bounds, FLOPs and
bytes ladders/    the kernels, one idea per rung, from loops in Python to the kernel used in
training peers/      other libraries: PyTorch, transformers, llm.c, NumPy models/     training
step, attention, sampling and GPT-2 generation as jobs harness/    worker processes, gate, rounds,
statistics, result files, tables, pages
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
