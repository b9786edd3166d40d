"""Tests of the data of a page: every line, its verdict, its arrays and figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    X,
    edited,
    planted_bugs,
    studied_target,
    truth,
)

from tinygpt_np.study.proof.sheet import Sheet, study
from tinygpt_np.study.render.page import (
    STEPS,
    ErrorCurves,
    Json,
    array,
    difference,
    error_curves,
    finite,
    page_data,
)
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.trace import Value


@pytest.fixture(scope="module")
def softmax() -> Json:
    return page_data(studied_target("softmax"), planted_bugs("softmax"))


@pytest.fixture(scope="module")
def gpt() -> Json:
    return page_data(studied_target("gpt"), [])


def in_loop(gpt: Json) -> list[Json]:
    """Return the rows that set x in the loop over the layers."""
    rows = (row for row in gpt["rows"] if row["iteration"])
    return [row for row in rows if row["sets"] and row["sets"][0].startswith("x@")]


def lines(of: Json) -> dict[str, Json]:
    """Return the lines of the first backward by their text."""
    return {line["text"]: line for row in of["rows"] for line in row["backward"]}


def row(of: Json, name: str) -> Json:
    """Return the forward line that sets a name."""
    return next(row for row in of["rows"] if name in [key.split("@")[0] for key in row["sets"]])


def broken(*edits: tuple[str, str]) -> Sheet:
    """Study softmax with lines of backward_steps replaced."""
    target = targets.named_target("softmax")
    source = edited("\n".join(target.forward.lines), *edits)
    backward = find_function(source, "backward_steps", "ops/softmax.py")
    return study(replace(target, backwards=(backward,), functions=()))


def test_the_data_can_be_written_as_json(softmax: Json, gpt: Json) -> None:
    for each in (softmax, gpt):
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_a_name_that_is_reassigned_has_another_key(gpt: Json) -> None:
    first, second = in_loop(gpt)
    assert [first["iteration"], second["iteration"]] == ["layer = 0", "layer = 1"]
    assert first["sets"] != second["sets"]
    assert f'data-name="x" data-value="{first["sets"][0]}"' in second["html"]
    ids = [line["id"] for row in gpt["rows"] for line in row["backward"]]
    assert len(ids) == len({*ids})


def test_a_parameter_has_its_arrays_and_its_verdict(gpt: Json) -> None:
    param = gpt["params"]["ln_f.weight"]
    assert param["gradient"]["shape"] == param["value"]["shape"]
    assert [verdict["status"] for verdict in param["verdicts"]] == ["right"]


def test_the_terms_of_a_gradient_name_the_line_they_come_from(softmax: Json) -> None:
    verdicts = [v for v in softmax["values"]["exps@2"]["verdicts"] if v["term"]]
    assert [v["through"] for v in verdicts] == [
        "probs = exps / total", "total = exps.sum(axis=-1, keepdims=True)"
    ]  # fmt: skip


def test_the_closed_form_lists_the_names_without_a_gradient(softmax: Json) -> None:
    assert softmax["closed_form"]["together"] == ["shifted", "exps", "total"]
    assert softmax["closed_form"]["agreement"] < 1e-14


def test_a_gradient_of_the_wrong_shape_has_no_difference() -> None:
    found = page_data(broken(("dx = dshifted", "dx = dshifted[0]")), [])
    assert found["values"]["x"]["difference"] is None


def test_every_line_of_a_bug_is_on_the_page(softmax: Json) -> None:
    ids = {line["id"] for line in (*lines(softmax).values(), *softmax["closed_form"]["lines"])}
    for found in softmax["bugs"]:
        assert {found["id"], found["first_wrong"], *found["affected"]} - {""} <= ids


def test_a_bug_that_raises_stops_the_backward() -> None:
    found = page_data(studied_target("linear"), planted_bugs("linear"))["bugs"]
    raising = [bug for bug in found if "raises" in bug["message"]]
    assert raising
    assert all(bug["stopped"] for bug in raising)
    assert not all(bug["stopped"] for bug in found)


def test_a_backward_that_raises_has_the_line_number() -> None:
    edits = ("dexps = dprobs / total", "dexps = dprobs * 2"), ("dexps * exps", "dexps @ exps")
    shown = page_data(broken(*edits), [])
    assert shown["raises_at"] == 43
    lines = {line["text"]: line["status"] for row in shown["rows"] for line in row["backward"]}
    assert lines["dexps = dprobs * 2"] == "wrong"
    assert lines["dx = dshifted"] == lines["return dx"] == "unreached"


def test_gradients_that_cannot_be_compared_have_no_figures() -> None:
    target = targets.named_target("softmax")
    text = "\n".join(target.backwards[1].lines)
    for edit in (("dx = probs * (", "dx = 0 * ("), ("return dx", "return dx[0]")):
        closed = find_function(text.replace(*edit), "backward", target.file)
        backwards = (target.backwards[0], closed)
        shown = page_data(study(replace(target, backwards=backwards, functions=())), [])
        json.dumps(shown, allow_nan=False)


def test_a_difference_is_taken_before_it_is_rounded() -> None:
    expected, found = np.array([1.0, 1e6]), np.array([1 + 1e-9, 1e6 + 1e-3])
    shown = difference(found, expected)
    assert shown is not None
    assert shown["numbers"] == [1e-9, 0.001]


def test_numbers_that_are_not_finite_become_none() -> None:
    assert [finite(x) for x in (np.inf, -np.inf, np.nan, 0.5)] == [None, None, None, 0.5]
    json.dumps(array(np.array([np.nan, np.inf])), allow_nan=False)


def curves_of(text: str = FORWARD + BACKWARD, seed: int = 0) -> ErrorCurves:
    found = error_curves(truth(text, seed=seed).total(Value("z", 0)), seed)
    assert found is not None
    return found


def error_at(errors: list[float], step: float) -> float:
    return errors[int(np.argmin(np.abs(np.log10(STEPS / step))))]


@pytest.mark.parametrize("seed", range(3))
def test_the_central_difference_has_errors_of_truncation_and_of_rounding(seed: int) -> None:
    central = curves_of(seed=seed).central
    # From 1e-2 to 1e-4: where only the curvature is off.
    slope = (np.log10(error_at(central, 1e-2)) - np.log10(error_at(central, 1e-4))) / 2
    assert slope == pytest.approx(2, abs=0.02)
    best = int(np.argmin(central))
    assert 1e-7 < STEPS[best] < 1e-4
    assert error_at(central, 1e-13) > 1e4 * central[best]
    assert np.median(central[-4:]) > np.median(central[best : best + 4])


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_the_complex_step_stays_small_at_small_steps(seed: int) -> None:
    errors = np.array(curves_of(seed=seed).complex)
    assert errors[STEPS <= 1e-8].max() < 1e-14
    slope = (np.log10(error_at([*errors], 1e-2)) - np.log10(error_at([*errors], 1e-4))) / 2
    assert slope == pytest.approx(2, abs=0.02)


def test_a_forward_without_complex_numbers_has_no_complex_step() -> None:
    found = curves_of(edited(FORWARD, ("np.tanh(z)", "np.abs(z)")))
    assert found.complex == []
    assert error_at(found.central, 1e-5) < 1e-8


def test_a_tensor_that_is_zero_or_measured_along_directions_has_no_error_curves() -> None:
    text = "def forward(x):\n    z = x * 0\n    y = z.sum() * 0 + x.sum()\n    return y, 0"
    assert error_curves(truth(text, {"x": X}).total(Value("z", 0))) is None
    args = {"x": np.ones(2001)}
    measured = truth("def forward(x):\n    y = x * x\n    return y, 0", args)
    assert error_curves(measured.total(Value("x", -1))) is None
