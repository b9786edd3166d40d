"""The parts of a step that are timed."""

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.models.workloads import Workload
from benchmarks.worker import gradients


def test_a_turn_trains_and_times_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "ADDED", 10)
    served = gradients.Gradients()
    served.open(asdict(Workload("tiny", 1, 2, 8, 4, 2, 11, 1)), threads=2, batches=3)
    assert len(served.grads) == 2  # Each is one micro-batch, for one thread.
    before = served.model.params["wte.weight"].copy()
    turn = served.turn()
    served.engine.close()
    assert sorted(turn) == ["adding", "packing", "step", "update"]
    assert min(turn.values()) > 0
    assert (served.model.params["wte.weight"] != before).any()
    np.testing.assert_array_equal(served.terms[0], np.full(10, 3.0, np.float32))
