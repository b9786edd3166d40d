"""JAX does every task, and passes the gate."""

import importlib
from typing import Any

import pytest
from extras import needs
from gated import CASES, pass_gate

from benchmarks.workers import Process

needs("jax")
jax_kernels: Any = importlib.import_module("benchmarks.peers.jax_kernels")


@pytest.mark.parametrize(("operation", "direction"), CASES)
def test_jax_is_right(operation: str, direction: str) -> None:
    (rung,) = jax_kernels.rungs(operation)
    pass_gate(rung, operation, direction)


def test_a_process_of_jax_is_held_to_its_threads() -> None:
    """In a process of its own, for it stays so."""
    options = {"source": jax_kernels.__name__, "seed": 0, "options": {"threads": 1}}
    process = Process("jax", "benchmarks.bench:Bench", options, 1)
    try:
        assert process.ask("about")["threads"] == 1
    finally:
        process.close()
