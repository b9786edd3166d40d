"""Tests of the data of a page: every line, its verdict, its arrays and figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.architecture import line_of
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    X,
    edited,
    planted_bugs,
    studied,
    studied_target,
    truth,
)

from tinygpt_np.study.proof.sheet import Sheet, study
from tinygpt_np.study.render.page import (
    MAX_ELEMENTS,
    STEPS,
    ErrorCurves,
    Json,
    array,
    difference,
    error_curves,
    finite,
    key,
    page_data,
)
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.trace import Value

# A line in the loop over the layers.
IN_LOOP = line_of("x, block = self.block_forward", "model/gpt.py")


@pytest.fixture(scope="module")
def softmax() -> Json:
    return page_data(studied_target("softmax"), planted_bugs("softmax"))


@pytest.fixture(scope="module")
def gpt() -> Json:
    return page_data(studied_target("gpt"), [])


def lines(of: Json) -> dict[str, Json]:
    """Return the lines of the first backward by their text."""
    return {line["text"]: line for row in of["rows"] for line in row["backward"]}


def row(of: Json, name: str) -> Json:
    """Return the forward line that sets a name."""
    return next(row for row in of["rows"] if name in [key.split("@")[0] for key in row["sets"]])


def broken(text: str, wrong: str) -> Sheet:
    """Study softmax with a line of backward_steps replaced."""
    target = targets.named_target("softmax")
    source = "\n".join(target.forward.lines)
    assert text in source
    backward = find_function(source.replace(text, wrong), "backward_steps", "ops/softmax.py")
    return study(replace(target, backwards=(backward,), functions=()))


def test_the_data_can_be_written_as_json(softmax: Json, gpt: Json) -> None:
    for each in (softmax, gpt):
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_the_first_paragraph_is_the_summary(softmax: Json) -> None:
    assert softmax["summary"] == "Softmax: turn the last axis into a probability distribution."


def test_the_formulas_of_the_docstring_are_mathml(softmax: Json) -> None:
    found = [line for part in softmax["derivation"] for line in part.get("lines", [])]
    assert len(found) == 3
    assert all(line.startswith("<math") for line in found)


def test_every_gradient_is_counted(softmax: Json) -> None:
    assert (softmax["right"], softmax["total"], softmax["ok"]) == (6, 6, True)


def test_a_backward_line_is_in_the_row_of_the_line_it_reverses(softmax: Json) -> None:
    aligned = [line["text"] for line in row(softmax, "exps")["backward"]]
    assert aligned == ["dshifted = dexps * exps"]


def test_a_line_without_a_gradient_is_constant(softmax: Json) -> None:
    assert [row["line"] for row in softmax["rows"] if row["constant"]] == [25]


def test_the_signature_sets_the_arguments(softmax: Json) -> None:
    assert softmax["rows"][0]["sets"] == ["x"]


def test_lines_list_the_names_they_read(softmax: Json) -> None:
    assert "exps" in row(softmax, "total")["reads"]
    assert "dexps" in lines(softmax)["dshifted = dexps * exps"]["reads"]


def test_the_upstream_gradient_is_marked(softmax: Json) -> None:
    upstream = softmax["head"]["upstream"]
    assert softmax["values"][upstream]["name"] == "probs"
    assert softmax["values"][upstream]["upstream"]


def test_a_gradient_has_the_key_of_its_value(softmax: Json) -> None:
    html = lines(softmax)["dshifted = dexps * exps"]["html"]
    assert 'data-name="dexps" data-value="exps@2"' in html


def test_a_name_that_is_reassigned_has_another_key(gpt: Json) -> None:
    first, second = (r for r in gpt["rows"] if r["line"] == IN_LOOP)
    assert first["sets"] != second["sets"]
    assert f'data-name="x" data-value="{first["sets"][0]}"' in second["html"]


def test_line_ids_are_unique(gpt: Json) -> None:
    ids = [line["id"] for row in gpt["rows"] for line in row["backward"]]
    assert len(ids) == len({*ids})


def test_each_iteration_of_a_loop_is_labelled(gpt: Json) -> None:
    iterations = [row["iteration"] for row in gpt["rows"] if row["line"] == IN_LOOP]
    assert iterations == ["layer = 0", "layer = 1"]


def test_a_parameter_has_its_arrays_and_its_verdict(gpt: Json) -> None:
    param = gpt["params"]["ln_f.weight"]
    assert param["gradient"]["shape"] == param["value"]["shape"]
    assert [verdict["status"] for verdict in param["verdicts"]] == ["right"]


def test_the_terms_of_a_gradient_name_the_line_they_come_from(softmax: Json) -> None:
    verdicts = [v for v in softmax["values"]["exps@2"]["verdicts"] if v["term"]]
    assert [v["through"] for v in verdicts] == [
        "probs = exps / total", "total = exps.sum(axis=-1, keepdims=True)"
    ]  # fmt: skip


def test_a_value_lists_the_rows_that_read_it(softmax: Json) -> None:
    uses = [softmax["rows"][use]["line"] for use in softmax["values"]["exps@2"]["uses"]]
    assert uses == [28, 29]


def test_a_constant_has_a_value_and_no_gradient(softmax: Json) -> None:
    largest = softmax["values"]["largest@0"]
    assert largest["constant"]
    assert largest["value"]["shape"] == [2, 3, 1]
    assert largest["gradient"] is None


def test_the_difference_is_taken_before_it_is_rounded(softmax: Json) -> None:
    value = softmax["values"]["exps@2"]
    assert value["gradient"]["numbers"] == value["expected"]["numbers"]
    assert 0 < value["difference"]["norm"] < 1e-14


def test_the_closed_form_lists_the_names_without_a_gradient(softmax: Json) -> None:
    assert softmax["closed_form"]["together"] == ["shifted", "exps", "total"]
    assert softmax["closed_form"]["agreement"] < 1e-14


def test_a_rule_has_its_formulas(softmax: Json) -> None:
    rule = row(softmax, "probs")["rule"]
    assert rule["name"] == "quotient"
    assert len(rule["formulas"]) == 3


def test_a_wrong_line_is_distinguished_from_those_that_inherit_the_error() -> None:
    found = lines(page_data(broken("dshifted = dexps * exps", "dshifted = 2 * dexps * exps"), []))
    assert found["dshifted = 2 * dexps * exps"]["status"] == "wrong"
    assert found["dx = dshifted"]["status"] == "inherited"
    assert found["dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)"]["status"] == (
        "right"
    )


def test_a_gradient_of_the_wrong_shape_has_no_difference() -> None:
    found = page_data(broken("dx = dshifted", "dx = dshifted[0]"), [])
    assert found["values"]["x"]["difference"] is None


def test_a_bug_lists_the_lines_it_makes_wrong(softmax: Json) -> None:
    found = next(b for b in softmax["bugs"] if b["after"] == "dshifted = dprobs * exps")
    assert found["first_wrong"] == found["id"] == "backward_steps:43"
    assert {line: each["status"] for line, each in found["affected"].items()} == {
        "backward_steps:43": "wrong",
        "backward_steps:45": "inherited",
        "backward_steps:46": "inherited",
    }


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
    target = targets.named_target("softmax")
    text = "\n".join(target.backwards[0].lines)
    text = text.replace("dexps = dprobs / total", "dexps = dprobs * 2")
    text = text.replace("dshifted = dexps * exps", "dshifted = dexps @ exps")
    changed = find_function(text, "backward_steps", target.file)
    shown = page_data(study(replace(target, backwards=(changed,), functions=())), [])
    assert shown["raises_at"] == 43
    lines = {line["text"]: line["status"] for row in shown["rows"] for line in row["backward"]}
    assert lines["dexps = dprobs * 2"] == "wrong"
    assert lines["dx = dshifted"] == lines["return dx"] == "unreached"


def test_gradients_that_cannot_be_compared_have_no_figures() -> None:
    target = targets.named_target("softmax")
    text = "\n".join(target.backwards[1].lines)
    changed = find_function(
        text.replace("dx = probs * (", "dx = 0 * (", 1), "backward", target.file
    )
    wrong = find_function(text.replace("return dx", "return dx[0]"), "backward", target.file)
    for closed in (changed, wrong):
        backwards = (target.backwards[0], closed)
        shown = page_data(study(replace(target, backwards=backwards, functions=())), [])
        json.dumps(shown, allow_nan=False)


def test_a_large_array_has_only_its_norm() -> None:
    large = array(np.ones(MAX_ELEMENTS + 1))
    assert large is not None
    assert large["numbers"] is None
    assert large["norm"] == float(np.linalg.norm(np.ones(MAX_ELEMENTS + 1)))


def test_a_number_that_is_not_finite_is_none() -> None:
    found = array(np.array([1.0, np.inf]))
    assert found is not None
    assert (found["numbers"], found["norm"]) == ([1.0, None], None)


def test_the_key_of_a_value_is_its_name_and_step() -> None:
    assert key(Value("x", -1)) == "x"
    assert key(Value("x", 7)) == "x@7"


def test_a_difference_is_taken_before_it_is_rounded() -> None:
    exact, found = np.array([1.0, 1e6]), np.array([1.0, 1e6 + 1e-3])
    shown = difference(found, exact)
    assert shown is not None
    assert shown["numbers"] == [0.0, 0.001]


def test_arrays_of_different_shapes_have_no_difference() -> None:
    assert difference(np.ones(3), np.ones((3, 1))) is None
    assert difference(None, np.ones(3)) is None


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
def test_the_error_of_the_central_difference_is_quadratic_in_the_step(seed: int) -> None:
    central = curves_of(seed=seed).central
    # From 1e-2 to 1e-4: where only the curvature is off.
    slope = (np.log10(error_at(central, 1e-2)) - np.log10(error_at(central, 1e-4))) / 2
    assert slope == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_the_central_difference_grows_at_small_steps(seed: int) -> None:
    central = curves_of(seed=seed).central
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


def test_there_is_one_error_for_each_step_size() -> None:
    found = curves_of()
    assert found.steps == sorted(found.steps, reverse=True)
    assert len(found.steps) == len(found.central) == len(found.complex) == len(STEPS)
    assert (found.steps[0], found.steps[-1]) == (1.0, pytest.approx(1e-16))


def test_a_forward_without_complex_numbers_has_no_complex_step() -> None:
    found = curves_of(edited(FORWARD, ("np.tanh(z)", "np.abs(z)")))
    assert found.complex == []
    assert error_at(found.central, 1e-5) < 1e-8


def test_a_zero_gradient_has_no_error_curves() -> None:
    text = "def forward(x):\n    z = x * 0\n    y = z.sum() * 0 + x.sum()\n    return y, 0"
    assert error_curves(truth(text, {"x": X}).total(Value("z", 0))) is None


def test_a_tensor_measured_along_directions_has_no_error_curves() -> None:
    args = {"x": np.ones(2001)}
    measured = truth("def forward(x):\n    y = x * x\n    return y, 0", args)
    assert error_curves(measured.total(Value("x", -1))) is None


def test_the_error_curves_depend_on_the_seed_only() -> None:
    assert curves_of(seed=2) == curves_of(seed=2)
    assert curves_of(seed=2) != curves_of(seed=3)


@pytest.mark.parametrize("name", ["layer_norm", "softmax", "gelu_exact", "linear"])
def test_each_gradient_of_an_operation_has_error_curves(name: str) -> None:
    found = studied(name)
    for value in found.values:
        errors = error_curves(found.truth.total(value))
        assert errors is not None, value
        assert min(errors.complex) < 1e-14, value
        # A step that makes a variance negative gives NaN.
        assert np.nanmin(errors.central) < 1e-7, value
