"""The checks of libraries accept a right backward of NumPy code and refuse a wrong one."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck.test_detectors import site
from helpers.optional import needs

from tinygpt_np.gradcheck.detectors import AT_INIT, RightResult, plant, refused, work
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS, Arrays, LibraryCheck, Pair
from tinygpt_np.gradcheck.mutations import sites

rng = np.random.default_rng(0)
X, W = rng.standard_normal((4, 6)), rng.standard_normal((6, 5))
every_library = pytest.mark.parametrize("library", LIBRARY_CHECKS)


@pytest.fixture(autouse=True)
def library_is_there(request: pytest.FixtureRequest) -> None:
    if "library" in request.fixturenames:
        needs(LIBRARY_CHECKS[request.getfixturevalue("library")].package)


def right(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    x, w = arrays
    return doutput @ w.T, x.T @ doutput


def pair(backward: Callable[..., Any]) -> Pair:
    return Pair((X, W), np.matmul, backward)


def doubled(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    dx, dw = right(arrays, doutput)
    return dx, 2 * dw


def transposed(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    dx, dw = right(arrays, doutput)
    return dx, dw.T


def one_more(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    return (*right(arrays, doutput), doutput)


def changes_inputs(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    doutput *= 2
    return right(arrays, doutput)


def divides_by_zero(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    return tuple(gradient / np.zeros(1) for gradient in right(arrays, doutput))


def raises(arrays: Arrays, doutput: np.ndarray) -> Arrays:
    raise ValueError("on purpose")


@every_library
def test_a_right_backward_is_accepted_and_a_wrong_one_refused(
    library: str, capfd: pytest.CaptureFixture[str]
) -> None:
    state = str(np.random.get_state())  # noqa: NPY002
    assert not refused(library, [pair(right)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for wrong in (doubled, transposed, one_more, changes_inputs, divides_by_zero, raises):
            assert refused(library, [pair(right), pair(wrong)]), wrong
    assert [each for each in caught if each.filename == __file__] == []
    assert not refused(library, [pair(right)])
    # Neither a warning nor a log, and NumPy's generator is as before.
    assert capfd.readouterr() == ("", "")
    assert str(np.random.get_state()) == state  # noqa: NPY002


@every_library
def test_the_output_is_computed_once_for_all_backwards(library: str) -> None:
    calls = 0

    def forward(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return x @ w

    checked = Pair((X, W), forward, right)
    assert not refused(library, [checked])
    before = calls
    assert not refused(library, [checked])
    assert 0 < before == calls


# The bugs that each library misses, as measured: half of a gradient at the scores of GPT-2's
# initialisation, and a bias's gradient without its sum, which PyTorch sums itself.
MISSED = {
    ("softmax", "dexps = dprobs / total / 2"): {"torch, init", "torch fast, init"},
    ("linear", "dbias = None if unbiased else dy"): {
        name + where for name in ("torch", "torch fast") for where in ("", AT_INIT)
    },
}


@every_library
@pytest.mark.parametrize(("operation", "after"), MISSED)
def test_a_bug_is_missed_where_the_tolerance_is_absolute_and_where_a_library_helps(
    library: str, operation: str, after: str
) -> None:
    chosen = next(
        (each, mutation)
        for each in sites()
        if each.operation == operation
        for mutation in each.mutations()
        if mutation.after == after
    )
    detected = plant(*chosen, 0, [library]).detected
    missed = {name for name in (library, library + AT_INIT) if not detected[name]}
    assert detected["complex"]
    assert missed == MISSED[operation, after] & {library, library + AT_INIT}


def test_jax_accuses_the_right_gradient_at_the_initialisation() -> None:
    # Its step of 1e-4 is too long for embeddings of 0.02 that a layer norm divides by their size.
    needs("jax")
    number = sites().index(site("linear"))
    assert work((number, None, 0, ("jax",))) == RightResult("linear", "backward", ("jax, init",))


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert LibraryCheck("", "no_such_library", print).version is None
