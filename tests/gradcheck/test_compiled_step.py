"""The check of the compiled training step finds errors planted in it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinygpt_np.compiled import engine, matmuls, operations
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.kernels import attention, dropout, matmul
from tinygpt_np.compiled.threads import ThreadTeam
from tinygpt_np.gradcheck import Report, compiled_step, suite
from tinygpt_np.gradcheck.suite import wide_step

Patch = pytest.MonkeyPatch


def wrong(report: Report) -> dict[str, str]:
    return {row.name: "; ".join((*row.problems, row.cause)) for row in report.rows if not row.ok}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: Patch) -> None:
    """Take one repetition where no race has to show."""
    monkeypatch.setattr(compiled_step, "REPETITIONS", 1)


@pytest.mark.parametrize("point", suite.WIDE_BATCHES)
def test_the_step_is_right(point: str) -> None:
    report = wide_step(point)
    assert report.ok, report
    assert [row.name for row in report.rows][-3:] == ["loss", "dropout masks", "threads"]


@pytest.mark.slow
def test_the_last_columns_of_a_matrix_that_are_not_packed_are_found(monkeypatch: Patch) -> None:
    right = matmul.pack_columns

    @strict  # Recordings hold machine code.
    def cut(matrix: Any, form: Any, depth: Any, first: Any, end: Any, panels: Any) -> None:
        columns = matrix.shape[0] if form == matmul.TRANSPOSED else matrix.shape[1]
        end -= end % matmul.PANEL if first > 0 and end == columns else 0
        right(matrix, form, depth, first, end, panels)

    monkeypatch.setattr(matmuls.matmul, "pack_columns", cut)
    assert "h.0.mlp.c_fc.weight" in wrong(wide_step("wide"))


@pytest.mark.slow
def test_attention_scratch_shared_in_a_team_is_found(monkeypatch: Patch) -> None:
    # Enough repetitions for a race to show on a busy machine.
    monkeypatch.setattr(compiled_step, "REPETITIONS", 1000)

    def scratch_of(self: operations.Attention, _: ThreadTeam) -> attention.Scratch:
        return self.scratch

    monkeypatch.setattr(operations.Attention, "scratch_of", scratch_of)
    assert "do threads share memory?" in wrong(wide_step("one sequence"))["threads"]


fill_mask, fill_part = dropout.fill_mask, dropout.fill_part


@strict  # Recordings hold machine code.
def one_for_all_layers(mask: Any, p: Any, draw: Any, number: Any, size: Any) -> None:
    fill_part(mask, p, draw, 0, size)


@strict
def one_for_all_steps(mask: Any, p: Any, draw: Any, number: Any, size: Any) -> None:
    fill_mask(mask, p, np.uint64(number), draw[1] * np.uint64(size))


SAME: dict[str, Callable[..., None]] = {
    "drop and h.0.attn have the same mask": one_for_all_layers,
    "drop and drop of the next step have the same mask": one_for_all_steps,
}


@pytest.mark.parametrize("problem", SAME)
def test_one_dropout_mask_for_all_layers_or_all_steps_is_found(
    problem: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(dropout, "fill_part", SAME[problem])
    assert problem in wrong(wide_step("wide"))["dropout masks"]


def test_a_loss_that_is_not_averaged_is_found(monkeypatch: Patch) -> None:
    right = engine.CompiledEngine.loss_and_grads

    def total(self: Any, tokens: np.ndarray, *rest: Any) -> Any:
        loss, grads = right(self, tokens, *rest)
        return loss * tokens.size, grads

    monkeypatch.setattr(engine.CompiledEngine, "loss_and_grads", total)
    assert [*wrong(wide_step("wide"))] == ["loss"]
