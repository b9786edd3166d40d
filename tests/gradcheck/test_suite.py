"""The suite checks every operation and model at every point."""

from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPT, backend, ops
from tinygpt_np.compiled import kernels
from tinygpt_np.config import generator
from tinygpt_np.gradcheck import suite
from tinygpt_np.gradcheck.cases import SIZES, VARIANTS


@pytest.mark.parametrize("name", suite.NAMES)
def test_everything_is_right(name: str) -> None:
    found = list(suite.run(name, "complex", 0))
    for _, report in found:
        assert report.ok, report
    if name == "gpt":
        reports = {heading.removeprefix("gpt, "): report for heading, report in found}
        newer, compiled = len(suite.NEWER), len(backend.BACKENDS) - 1
        assert len(reports) == 8 + newer + compiled * (1 + newer)
        every = reports["generic values, every element"].rows
        assert all(row.checked == np.prod(row.shape) for row in every[:-1])
        expected = [*GPT(suite.CONFIG).params, "loss", "dropout masks"]
        for point in ("generic values, every element", "float32", "float32, numba", "T=1", "B=1"):
            names = [row.name for row in reports[point].rows if "[key]" not in row.name]
            assert names == expected, point


@pytest.mark.slow
def test_an_error_in_a_compiled_kernel_is_found_in_the_compiled_gpt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = kernels.layer_norm.backward

    def backward(dy: np.ndarray, saved: Any) -> Any:
        dx, dweight, dbias = right(dy, saved)
        return dx, 2 * dweight, dbias

    monkeypatch.setattr(kernels.layer_norm, "backward", backward)
    wrong = [heading for heading, report in suite.run("gpt", "complex", 0) if not report.ok]
    with_layer_norm = [name for name, each in suite.NEWER.items() if each.norm == "layer_norm"]
    points = ["float32, numba", *(f"{name}, float32, numba" for name in with_layer_norm)]
    assert wrong == [f"gpt, {point}" for point in points]


def test_the_block_is_checked_with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ops.dropout.backward

    def backward(dy: np.ndarray, saved: Any) -> np.ndarray:
        return dy.copy() if saved[0] is not None else right(dy, saved)

    reports = (next(suite.run("block", "complex", 0))[1] for _ in range(2))
    assert next(reports).ok
    monkeypatch.setattr(ops.dropout, "backward", backward)
    assert not next(reports).ok


@pytest.mark.parametrize("name", ["linear", "softmax"])
def test_an_operation_is_checked_in_float32_and_with_each_size_at_1(name: str) -> None:
    titles = [report.title for _, report in suite.run(name, "complex", 0)]
    assert any("float32" in title for title in titles)
    assert ("softmax, in steps" in titles) == (name == "softmax")
    for letter in VARIANTS[name].letters:
        assert any(title.endswith(f"{letter}=1") for title in titles), letter


def test_all_dimensions_are_distinct() -> None:
    config = suite.CONFIG
    sizes = [
        *(suite.BATCH, suite.TIME, config.n_head, config.n_embd // config.n_head, config.n_embd),
        *(config.vocab_size, config.block_size, 4 * config.n_embd, suite.BATCH * suite.TIME),
    ]
    assert len(set(sizes)) == len(sizes)
    for variant in VARIANTS.values():
        own = {SIZES[letter] for letter in variant.letters}
        assert len(own) == len(variant.letters), variant


def test_tokens_repeat_and_one_target_is_ignored() -> None:
    for seed in range(5):
        tokens, targets = suite.batch(11, suite.BATCH, suite.TIME, seed)
        assert len(np.unique(tokens)) < tokens.size
        assert 10 not in tokens
        assert (targets == -1).sum() == 1


def test_generic_weights_are_of_order_one_and_the_brief_training_lowers_the_loss() -> None:
    for name, param in suite.generic_gpt().params.items():
        assert 0.1 < np.sqrt(np.mean(param**2)) < 3, name
    model, rng = GPT(suite.CONFIG, 0, "float64"), generator(0, "data")
    tokens = np.resize(rng.integers(0, 11, 20), 6)[None]
    before = model.loss(tokens[:, :-1], tokens[:, 1:])
    suite.trained(model, 0)
    assert model.loss(tokens[:, :-1], tokens[:, 1:]) < 0.7 * before
