"""Bugs are planted where all code calls, and taken out again."""

import inspect

import numpy as np
import pytest

from tinygpt_np import ops
from tinygpt_np.gradcheck.mutations import Site, sites
from tinygpt_np.model.gpt import GPT, Gradients

SITES = sites()
IDS = [f"{site.operation}.{site.function}" for site in SITES]


def site(name: str) -> Site:
    return SITES[IDS.index(name)]


def test_every_backward_of_the_operations_is_a_site() -> None:
    found = [
        f"{name}.{function}"
        for name in ops.__all__
        for function in dir(getattr(ops, name))
        if function.startswith("backward")
    ]
    assert sorted(found) == sorted(i for i in IDS if not i.startswith("gpt"))


def test_every_backward_of_the_model_is_a_site() -> None:
    methods = [name for name, _ in inspect.getmembers(GPT) if "backward" in name]
    assert {i for i in IDS if i.startswith("gpt")} == {f"gpt.{n}" for n in [*methods, "keep"]}


@pytest.mark.parametrize("name", ["linear.backward", "softmax.backward_steps", "gpt.keep"])
def test_a_planted_mutant_is_called_until_it_is_taken_out(name: str) -> None:
    chosen = site(name)
    called = chosen.function.removesuffix("_steps")
    before = getattr(chosen.owner, called)

    def mutant() -> None: ...

    with chosen.planted(mutant):
        assert getattr(chosen.owner, called) is mutant
    assert getattr(chosen.owner, called) is before


def test_a_mutant_is_taken_out_after_an_error_too() -> None:
    before = Gradients.keep
    with pytest.raises(ZeroDivisionError), site("gpt.keep").planted(lambda: None):
        _ = 1 / 0
    assert Gradients.keep is before


def test_a_planted_softmax_is_the_one_that_attention_calls() -> None:
    chosen = site("softmax.backward")
    sign = next(
        m for m in chosen.mutations() if m.after == "dx = -(probs * (dprobs - weighted_mean))"
    )
    rng = np.random.default_rng(0)
    y, saved = ops.attention.forward(rng.standard_normal((6, 9)), 2, 1)
    dy = rng.standard_normal(y.shape)
    right = ops.attention.backward(dy, saved)
    with chosen.planted(chosen.compiled(sign)):
        wrong = ops.attention.backward(dy, saved)
    # Queries and keys get their gradient through the softmax, values do not.
    np.testing.assert_array_equal(wrong[:, :6], -right[:, :6])
    np.testing.assert_array_equal(wrong[:, 6:], right[:, 6:])


@pytest.mark.parametrize("name", ["gelu", "gelu_exact"])
def test_the_other_gelu_differs_by_a_thousandth_at_most(name: str) -> None:
    chosen = site(f"{name}.backward")
    other = next(m for m in chosen.mutations() if m.kind == "other GELU")
    x = np.random.default_rng(0).standard_normal((5, 7))
    _, saved = getattr(ops, name).forward(x)
    right, wrong = (
        f(np.ones_like(x), saved) for f in (chosen.owner.backward, chosen.compiled(other))
    )
    assert 1e-5 < np.abs(wrong - right).max() < 1e-3


@pytest.mark.parametrize("chosen", SITES, ids=IDS)
def test_every_mutant_compiles(chosen: Site) -> None:
    for mutation in chosen.mutations():
        assert callable(chosen.compiled(mutation))
