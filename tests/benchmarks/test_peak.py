"""The loop that measures the peak computes what it claims to compute."""

import pytest

from benchmarks import peak


def test_the_loop_does_all_of_its_multiply_adds() -> None:
    total = 0.0
    for start in range(peak.ACCUMULATORS):
        accumulator = float(start)
        for _ in range(7):
            accumulator = accumulator * 1.000001 + 1e-7
        total += accumulator
    assert peak.multiply_add(7) == pytest.approx(total, rel=1e-6)


def test_a_step_counts_the_flops_of_every_thread() -> None:
    assert peak.build(3).flops == 3 * peak.build(1).flops
