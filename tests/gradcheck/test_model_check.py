"""Whole models: every parameter is checked, and an error planted in one of them is found there."""

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.gradcheck import Report, check_model
from tinygpt_np.gradcheck.measure import METHODS, Method
from tinygpt_np.gradcheck.model_check import DIRECTIONS, ELEMENTS, KEY, ModelCheck
from tinygpt_np.gradcheck.suite import CONFIG, batch, generic_gpt
from tinygpt_np.model.language_model import LanguageModel
from tinygpt_np.storage.parameters import Tensors

# Small, because every element is checked.
SMALL = replace(CONFIG, vocab_size=5, block_size=3, n_layer=1, n_embd=4)
BIAS = "h.0.attn.c_attn.bias"
TOKENS, TARGETS = batch(SMALL.vocab_size, 2, 3, 0)
every_method = pytest.mark.parametrize("method", METHODS)


def planted(change: Callable[[Tensors], Any]) -> tg.GPT:
    """Return a model whose backward changes its gradients."""
    model = generic_gpt(SMALL)
    right = model.backward

    def backward(dlogits: np.ndarray, saved: Any) -> Tensors:
        grads = right(dlogits, saved)
        change(grads)
        return grads

    model.backward = backward
    return model


def checked(model: LanguageModel, **options: Any) -> Report:
    return check_model(model, TOKENS, TARGETS, **options)


def wrong(report: Report) -> list[str]:
    return [row.name for row in report.rows if not row.ok]


@cache
def model_check(directions: int | None = None) -> ModelCheck:
    model = generic_gpt(SMALL)
    return ModelCheck(model, TOKENS, TARGETS, None, "complex", directions, 0, "a model")


def of(change: Callable[[Tensors], Any]) -> Report:
    return model_check().report(planted(change))


def test_every_parameter_is_checked_and_only_the_key_bias_is_zero() -> None:
    report, params = model_check().report(), model_check().model.params
    assert [row.name for row in report.rows] == [*params, BIAS + KEY, "loss"]
    assert {row.name: row.verdict for row in report.rows} == (
        dict.fromkeys([*params, "loss"], "ok") | {BIAS + KEY: "zero"}
    )
    assert all(row.checked == np.prod(row.shape) for row in report.rows)
    assert report.notes == (
        "a bias of the keys shifts all scores of a row equally, so its gradient is exactly zero",
    )


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_model_is_right_and_keeps_its_parameters(method: Method, dtype: str) -> None:
    model = generic_gpt(SMALL, 1, dtype)
    before = copy.deepcopy(model.params)
    # Parameters that cannot be written can be checked, too.
    model.params["wte.weight"].setflags(write=False)
    assert checked(model, method=method, directions=1).ok
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, before[name])


@pytest.mark.parametrize("name", generic_gpt(SMALL).params)
def test_an_error_of_a_billionth_is_found_in_its_parameter(name: str) -> None:
    report = of(lambda grads: grads.update({name: np.asarray(grads[name] * (1 + 1e-9))}))
    assert wrong(report) == [name]


def test_a_gradient_of_the_key_bias_is_wrong() -> None:
    def leak(grads: Tensors) -> None:
        grads[BIAS][SMALL.n_embd] += 1e-9

    assert BIAS + KEY in wrong(of(leak))
    assert "it should be zero" in str(of(leak))
    assert BIAS + KEY in wrong(model_check(directions=4).report(planted(leak)))


def test_a_missing_gradient_or_a_wrong_shape_or_dtype_is_wrong() -> None:
    report = of(lambda grads: grads.pop(BIAS))
    assert wrong(report) == [BIAS, BIAS + KEY]
    assert all(row.problems == ("there is no gradient",) for row in report.rows if not row.ok)
    report = of(lambda grads: grads.update({BIAS: grads[BIAS][:-1]}))
    assert wrong(report) == [BIAS, BIAS + KEY]
    report = of(lambda grads: grads.update({"ln_f.bias": grads["ln_f.bias"].astype(np.float32)}))
    assert wrong(report) == ["ln_f.bias"]


def test_a_gradient_that_shares_memory_is_wrong() -> None:
    model = planted(lambda grads: grads.update({"ln_f.bias": model.params["ln_f.bias"]}))
    assert "shares its memory with ln_f.bias" in str(model_check(1).report(model))
    report = of(lambda grads: grads.update({"ln_f.weight": grads["ln_f.bias"]}))
    assert "shares its memory with the gradient of ln_f" in str(report)
    model = generic_gpt(replace(SMALL, dropout=0.3))
    masks, right = model.draw_masks(2, 3, np.random.default_rng(0)), model.backward
    mask = masks["drop"][0]
    model.backward = lambda dlogits, saved: right(dlogits, saved) | {"ln_f.bias": mask}
    assert "shares its memory with drop" in str(checked(model, masks=masks, directions=1))


def test_a_changed_parameter_is_wrong_and_restored() -> None:
    def change(_: Tensors) -> None:
        model.params["ln_f.bias"] += 1

    model = planted(change)
    before = model.params["ln_f.bias"].copy()
    report = model_check(1).report(model)
    assert wrong(report) == ["ln_f.bias"]
    assert "ln_f.bias: loss_and_grads changes the parameter" in str(report)
    np.testing.assert_array_equal(model.params["ln_f.bias"], before)


def test_a_large_model_is_checked_along_directions() -> None:
    model = tg.Bigram(50, dtype="float64")
    assert sum(p.size for p in model.params.values()) > ELEMENTS
    tokens, targets = batch(50, 2, 3, 0)
    row, _ = check_model(model, tokens, targets).rows
    assert (row.checked, row.by_element) == (DIRECTIONS, False)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((generic_gpt(SMALL), TOKENS, TARGETS), {"method": "guess"}, "method must be one of"),
        ((generic_gpt(SMALL), TOKENS, TARGETS), {"directions": 0}, "directions must be .*positive"),
        ((generic_gpt(SMALL), TOKENS, TARGETS[:1]), {}, "targets must be"),
        ((generic_gpt(SMALL), TOKENS + 9, TARGETS), {}, r"tokens must be in \[0, 5\), but"),
        ((None, TOKENS, TARGETS), {}, "model must be a LanguageModel, not NoneType"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(*arguments, **options)


# The loss, and state that survives from one call to the next


class Changed(tg.GPT):
    """A model that changes the results of loss_and_grads."""

    def __init__(self, change: Callable[[float, Tensors], tuple[float, Tensors]]) -> None:
        vars(self).update(vars(generic_gpt(SMALL)))
        self.change = change

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
    ) -> tuple[float, Tensors]:
        return self.change(*super().loss_and_grads(tokens, targets, masks))


def lines_of(report: Report, name: str) -> str:
    """Return the problems and the cause of one tensor."""
    row = next(row for row in report.rows if row.name == name)
    return "\n".join((*row.problems, row.cause))


def test_a_wrong_loss_is_found_if_all_gradients_are_right() -> None:
    report = model_check(1).report(Changed(lambda loss, grads: (loss * TOKENS.size, grads)))
    assert wrong(report) == ["loss"]
    assert "too large by a factor of 6" in lines_of(report, "loss")
    losses: list[Any] = [None, np.nan, np.ones(2), model_check().measured_loss.values[0] + 1e-9]
    for loss in losses:
        changed = Changed(lambda _, grads, loss=loss: (loss, grads))
        assert wrong(model_check(1).report(changed)) == ["loss"], loss


def test_gradients_that_are_not_set_to_zero_are_named() -> None:
    sums = {name: np.zeros_like(param) for name, param in generic_gpt(SMALL).params.items()}

    def add(loss: float, grads: Tensors) -> tuple[float, Tensors]:
        for name in sums:
            sums[name] += grads[name]
        return loss, sums

    report = model_check().report(Changed(add))
    assert {row.name for row in report.rows if row.ok} == {"loss", BIAS + KEY}
    assert "gradients are not set to zero" in lines_of(report, "wte.weight")


def test_weights_packed_before_an_update_are_named() -> None:
    class Packed(tg.GPT):
        """Uses one weight as it was at the first call."""

        def __init__(self) -> None:
            vars(self).update(vars(generic_gpt(SMALL)))
            self.packed: np.ndarray | None = None

        def loss_and_grads(
            self, tokens: np.ndarray, targets: np.ndarray, masks: Tensors | None = None
        ) -> tuple[float, Tensors]:
            name, right = "h.0.mlp.c_fc.weight", self.params
            if self.packed is None:
                self.packed = right[name].copy()
            self.params = {**right, name: self.packed}
            try:
                return super().loss_and_grads(tokens, targets, masks)
            finally:
                self.params = right

    report = model_check().report(Packed())
    assert {"h.0.mlp.c_fc.weight", "loss"} <= set(wrong(report))
    assert "such as weights packed before an update" in lines_of(report, "loss")


def doubled_in_the_last_call(names: Collection[str]) -> Changed:
    calls: list[float] = []

    def double(loss: float, grads: Tensors) -> tuple[float, Tensors]:
        calls.append(loss)
        factor = 2 if len(calls) == 3 else 1
        return loss, grads | {name: grads[name] * factor for name in names}

    return Changed(double)


def test_gradients_that_are_wrong_only_in_the_second_call_are_wrong_and_called_stale() -> None:
    report = model_check(1).report(doubled_in_the_last_call(["ln_f.bias"]))
    assert wrong(report) == ["ln_f.bias"]
    assert "in a second call: off by" in lines_of(report, "ln_f.bias")
    report = model_check().report(doubled_in_the_last_call(generic_gpt(SMALL).params))
    assert "state survives from one call to the next" in lines_of(report, "wte.weight")


def test_an_error_of_every_call_is_not_called_stale() -> None:
    report = of(lambda grads: grads.update({"wte.weight": grads["wte.weight"] * 2}))
    assert "counted twice" in lines_of(report, "wte.weight")
