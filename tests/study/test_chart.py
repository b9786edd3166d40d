import numpy as np
import pytest
from study_own import BACKWARD, FORWARD, X, edited, operation, truth

from tinygpt_np.study.chart import STEPS, Chart, chart
from tinygpt_np.study.trace import Value


def drawn(text: str = FORWARD + BACKWARD, seed: int = 0) -> Chart:
    found = chart(truth(text, seed=seed).total(Value("z", 0)), seed)
    assert found is not None
    return found


def at(errors: list[float], step: float) -> float:
    return errors[int(np.argmin(np.abs(np.log10(STEPS / step))))]


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_a_difference_falls_as_the_square_of_its_step(seed: int) -> None:
    central = drawn(seed=seed).central
    # From 1e-2 to 1e-4: where only the curvature is off.
    slope = (np.log10(at(central, 1e-2)) - np.log10(at(central, 1e-4))) / 2
    assert slope == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_a_difference_grows_again_where_it_rounds(seed: int) -> None:
    central = drawn(seed=seed).central
    best = int(np.argmin(central))
    assert 1e-7 < STEPS[best] < 1e-4
    assert at(central, 1e-13) > 1e4 * central[best]
    assert np.median(central[-4:]) > np.median(central[best : best + 4])


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_the_complex_step_falls_to_rounding_and_stays(seed: int) -> None:
    errors = np.array(drawn(seed=seed).complex)
    assert errors[STEPS <= 1e-8].max() < 1e-14
    slope = (np.log10(at([*errors], 1e-2)) - np.log10(at([*errors], 1e-4))) / 2
    assert slope == pytest.approx(2, abs=0.02)


def test_there_is_an_error_a_step_from_large_to_small() -> None:
    found = drawn()
    assert found.steps == sorted(found.steps, reverse=True)
    assert len(found.steps) == len(found.central) == len(found.complex) == len(STEPS)
    assert (found.steps[0], found.steps[-1]) == (1.0, pytest.approx(1e-16))


def test_a_forward_that_takes_no_complex_numbers_has_no_complex_step() -> None:
    found = drawn(edited(FORWARD, ("np.tanh(z)", "np.abs(z)")))
    assert found.complex == []
    assert at(found.central, 1e-5) < 1e-8


def test_of_a_gradient_that_is_zero_there_is_no_chart() -> None:
    text = "def forward(x):\n    z = x * 0\n    y = z.sum() * 0 + x.sum()\n    return y, 0"
    assert chart(truth(text, {"x": X}).total(Value("z", 0))) is None


def test_of_a_tensor_that_was_looked_at_along_directions_there_is_no_chart() -> None:
    args = {"x": np.ones(2001)}
    true = truth("def forward(x):\n    y = x * x\n    return y, 0", args)
    assert chart(true.total(Value("x", -1))) is None


def test_the_same_seed_draws_the_same_chart() -> None:
    assert drawn(seed=2) == drawn(seed=2)
    assert drawn(seed=2) != drawn(seed=3)


@pytest.mark.parametrize("name", ["layer_norm", "softmax", "gelu_exact", "linear"])
def test_each_gradient_of_an_operation_has_its_chart(name: str) -> None:
    found = operation(name)
    for value in found.values:
        errors = chart(found.truth.total(value))
        assert errors is not None, value
        assert min(errors.complex) < 1e-14, value
        # Where a variance is moved below zero there is nothing.
        assert np.nanmin(errors.central) < 1e-7, value
