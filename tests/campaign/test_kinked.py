# pyright: basic
"""16,000 gradients at kinks: a wrong one never passes, and no usual convention is called wrong.

CASES=7 pytest tests/campaign tests only input 7, CASES=all all of them, and CASES=1/4 one in four;
otherwise one input in twenty is tested, other ones each day.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from campaign.kinked import FUNCTIONS, NEAR, Arrays, Kinked, Rng, Truth, draw
from helpers.sample import sample

from tinygpt_np.gradcheck.function_check import FunctionCheck

SEED, INPUTS, EVERY, EACH, PARTS = 17, 2000, 20, 8, 4
FACTORS = (0.0, 2.0, -1.0, 0.5, 1.5, 0.25, 1.001, 1e3)
OFFSETS = (0.5, -0.25, 10.0, 1e-3)


def corrupted(rng: Rng, gradients: Arrays, truth: Truth) -> Arrays:
    """Return gradients that are changed at kinks, elsewhere, or everywhere."""
    kinks = [high - low > 10 * NEAR for low, high in zip(truth.low, truth.high, strict=True)]
    some = [rng.random(kink.shape) < 0.3 for kink in kinks]
    ones = [np.ones(kink.shape, bool) for kink in kinks]
    where = (kinks, kinks, some, ones)[int(rng.integers(4))]
    factor, offset, kind = rng.choice(FACTORS), rng.choice(OFFSETS), rng.integers(6)
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda g: factor * g,
        lambda g: factor * g,
        lambda g: g + offset,
        lambda g: np.full(g.shape, offset),
        lambda g: g + rng.standard_normal(g.shape),
        lambda g: np.roll(g, 1),
    ]
    return tuple(
        np.where(place, changes[kind](g), g) for place, g in zip(where, gradients, strict=True)
    )


def examine(number: int) -> Iterator[tuple[str, str]]:
    """Yield what each gradient at one input is, and the verdict on it."""
    name = [*FUNCTIONS][number % len(FUNCTIONS)]
    function, rng = FUNCTIONS[name], np.random.default_rng([SEED, number])
    args = draw(function, rng)
    weights = rng.standard_normal(function.forward(*args).shape)
    truth = Truth.of(function, args, weights)
    check = FunctionCheck(
        lambda *args: (function.forward(*args), None), args, doutput=weights, seed=number
    )
    for place in range(EACH):
        backward = function.backwards[place % len(function.backwards)]
        gradients = tuple(np.asarray(g, float) for g in backward(weights, *args))
        is_changed = place >= len(function.backwards)
        if is_changed:
            gradients = corrupted(rng, gradients, truth)
        kind = "wrong" if truth.is_wrong(gradients) else "changed" if is_changed else "right"
        report = check.report(lambda d, _, g=gradients: tuple(each.copy() for each in g))
        verdicts = {row.verdict for row in report.rows}
        verdict = next((v for v in ("wrong", "unmeasured") if v in verdicts), "ok")
        yield kind, f"{verdict}: {name} {number}" if verdict == "wrong" or report.ok else verdict


def judged(numbers: Iterable[int]) -> Counter[tuple[str, str]]:
    """Return how often each kind of gradient got each verdict."""
    return Counter(
        (kind, verdict if is_bad(kind, verdict) else verdict.partition(":")[0])
        for number in numbers
        for kind, verdict in examine(number)
    )


def is_bad(kind: str, verdict: str) -> bool:
    """Return whether a wrong gradient passes, or a right one is called wrong."""
    return (kind, verdict.partition(":")[0]) in (("wrong", "ok"), ("right", "wrong"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_wrong_gradient_passes_and_no_convention_is_wrong(part: int) -> None:
    mine = sample(INPUTS, EVERY)[part::PARTS]
    found = judged(mine)
    assert not [each for each in found if is_bad(*each)]
    if len(mine) > len(FUNCTIONS):
        # The campaign is about kinks: many gradients must be wrong there, and some right.
        assert sum(n for (kind, _), n in found.items() if kind == "wrong") > 4 * len(mine)
        assert found["right", "ok"] > len(mine)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_convention_is_allowed_by_the_exact_derivatives(name: str) -> None:
    function = FUNCTIONS[name]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        args = draw(function, rng)
        weights = rng.standard_normal(function.forward(*args).shape)
        truth = Truth.of(function, args, weights)
        for backward in function.backwards:
            gradients = tuple(np.asarray(g, float) for g in backward(weights, *args))
            assert not truth.is_wrong(gradients)
            assert truth.is_wrong(tuple(g + 0.5 for g in gradients))


def test_a_wrong_gradient_of_tied_elements_is_recognised() -> None:
    pool: Kinked = FUNCTIONS["max pool"]
    x = np.repeat(np.arange(4.0), 4).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
    weights = np.array([[1.0, 2.0], [3.0, 4.0]])
    truth = Truth.of(pool, (x,), weights)
    assert len(truth.groups) == 4
    # Each of the tied elements gets the whole gradient.
    assert truth.is_wrong((np.repeat(np.repeat(weights, 2, 0), 2, 1),))
    assert not truth.is_wrong((np.repeat(np.repeat(weights / 4, 2, 0), 2, 1),))
