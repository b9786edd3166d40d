"""Tests of the data of a page: every line, its verdict, its arrays and figures."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.study_targets import (
    BACKWARD,
    FORWARD,
    X,
    edited,
    sheet,
    studied_target,
    truth,
)

from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.render import site
from tinygpt_np.study.render.page import STEPS, Json, difference, error_curves, page_data
from tinygpt_np.study.render.questions import questions
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import find_function
from tinygpt_np.study.source.trace import Value


@pytest.fixture(scope="module")
def softmax() -> Json:
    return page_data(studied_target("softmax"), questions(studied_target("softmax").truth))


@pytest.fixture(scope="module")
def gpt() -> Json:
    return page_data(studied_target("gpt"), [])


def lines(of: Json) -> dict[str, Json]:
    return {line["text"]: line for row in of["rows"] for line in row["backward"]}


def broken(*edits: tuple[str, str], name: str = "backward_steps") -> Json:
    """Return the page of softmax with lines of a backward replaced."""
    target = targets.named_target("softmax")
    source = edited("\n".join(target.forward.lines), *edits)
    changed = find_function(source, name, "ops/softmax.py")
    backwards = tuple(changed if each.name == name else each for each in target.backwards)
    return page_data(study(replace(target, backwards=backwards, functions=())), [])


def test_the_data_can_be_written_as_json(softmax: Json, gpt: Json) -> None:
    not_finite = broken(("dx = probs * (", "dx = np.inf * ("), name="backward")
    other_shape = broken(("dx = dshifted", "dx = dshifted[0]"))
    for each in (softmax, gpt, not_finite, other_shape):
        assert json.loads(json.dumps(each, allow_nan=False)) == each
    assert other_shape["values"]["x"]["difference"] is None


def test_a_name_that_is_reassigned_has_another_key(gpt: Json) -> None:
    rows = [row for row in gpt["rows"] if row["iteration"]]
    first, second = (row for row in rows if row["sets"] and row["sets"][0].startswith("x@"))
    assert [first["iteration"], second["iteration"]] == ["layer = 0", "layer = 1"]
    assert first["sets"] != second["sets"]
    assert f'data-name="x" data-value="{first["sets"][0]}"' in second["html"]
    ids = [line["id"] for row in gpt["rows"] for line in row["backward"]]
    assert len(ids) == len({*ids})


def test_a_line_reads_the_value_that_was_set_last(gpt: Json) -> None:
    html = [line["html"] for row in gpt["rows"][::-1] for line in row["backward"][::-1]]
    found = [re.findall(r'data-name="dx" data-value="(x@\d+)"', line) for line in html]
    (last,), second, first, (embedded,) = filter(None, found)
    assert len({last, second[0], first[0]}) == 3
    assert [second[1], first[1], embedded] == [last, second[0], first[0]]


def test_a_parameter_has_its_arrays_and_its_verdict(gpt: Json) -> None:
    param = gpt["params"]["ln_f.weight"]
    assert param["gradient"]["shape"] == param["value"]["shape"]
    assert [verdict["status"] for verdict in param["verdicts"]] == ["right"]


def test_the_terms_of_a_gradient_name_the_line_they_come_from(softmax: Json) -> None:
    verdicts = [v for v in softmax["values"]["exps@2"]["verdicts"] if v["term"]]
    assert [v["through"] for v in verdicts] == [
        "probs = exps / total", "total = exps.sum(axis=-1, keepdims=True)"
    ]  # fmt: skip


def test_a_line_has_its_rule_unless_it_reverses_several_lines(softmax: Json, gpt: Json) -> None:
    rows = {
        f"{v['id']}, {v['name']}": None if v["row"] is None else softmax["rows"][v["row"]]["line"]
        for value in softmax["values"].values()
        for v in value["verdicts"]
    }
    assert rows == {
        "backward_steps:38, dexps": 29,
        "backward_steps:39, dtotal": 29,
        "backward_steps:41, dexps": 28,
        "backward_steps:43, dshifted": 27,
        "backward_steps:45, dx": 26,
        "backward:53, dx": None,
    }
    (verdict,) = gpt["params"]["ln_f.weight"]["verdicts"]
    assert gpt["rows"][verdict["row"]]["rule"]["operation"] == "layer_norm"


def test_a_line_follows_a_rule_through_names_without_a_verdict() -> None:
    helped = edited(
        BACKWARD, ("    dz += da * (1 - a * a)", "    slope = da * (1 - a * a)\n    dz += slope")
    )
    found = page_data(sheet(FORWARD + helped), [])
    rows = [verdict["row"] for verdict in found["values"]["z@0"]["verdicts"]]
    assert [found["rows"][row]["sets"] for row in rows] == [["y@3"], ["b@2"], ["a@1"]]


def test_the_formulas_of_a_rule_name_the_gradient_that_they_give(softmax: Json, gpt: Json) -> None:
    given = {
        row["line"]: [formula["of"] for formula in row["rule"]["formulas"]]
        for row in softmax["rows"]
        if row["rule"]
    }
    assert given == {
        25: [], 26: ["", "dx"], 27: ["", "dshifted"], 28: ["", "dexps"],
        29: ["", "dexps", "dtotal"],
    }  # fmt: skip
    rule = next(row["rule"] for row in gpt["rows"] if "position_rows" in row["reads"])
    assert [each["of"] for each in rule["formulas"]] == ["", "dtoken_rows", "dposition_rows"]


def test_the_upstream_gradient_may_have_any_name() -> None:
    renamed = BACKWARD.replace("(dy, saved)", "(dout, saved)").replace("dy.copy()", "dout.copy()")
    found = page_data(sheet(FORWARD + renamed), [])
    (verdict,) = found["values"]["b@2"]["verdicts"]
    assert found["rows"][verdict["row"]]["sets"] == ["y@3"]


def test_a_missing_line_has_its_place_and_the_rule_of_the_line_that_it_should_reverse() -> None:
    found = page_data(sheet(FORWARD + edited(BACKWARD, ("    dz += db * a\n", ""))), [])
    texts = [line["text"] for line in found["rows"][3]["backward"]]
    assert texts == ["dz += …", "da = db * z"]
    line, dz = found["rows"][3]["backward"][0], found["values"]["z@0"]
    assert (line["status"], line["lacks"]) == ("missing", "z@0")
    assert 'data-name="dz" data-value="z@0"' in line["html"]
    assert dz["missing"] == [{"row": 3, "message": line["message"]}]
    # All lines of dz are right, but their sum is not.
    assert {verdict["status"] for verdict in dz["verdicts"]} == {"right"}
    assert not dz["difference"]["is_rounding"]
    assert dz["difference"]["numbers"]


def test_a_gradient_that_is_returned_without_a_name_is_shown() -> None:
    unnamed = edited(BACKWARD, ("    dw = x.T @ dz\n", ""), ("dx, dw", "dx, -x.T @ dz"))
    dw = page_data(sheet(FORWARD + unnamed), [])["values"]["w"]
    assert dw["gradient"]["norm"] == pytest.approx(dw["expected"]["norm"])
    assert dw["difference"]["norm"] == pytest.approx(2 * dw["expected"]["norm"])


def test_a_difference_that_rounding_explains_has_no_numbers(softmax: Json) -> None:
    differences = [value["difference"] for value in softmax["values"].values()]
    assert {each["is_rounding"] for each in differences if each} == {True}
    assert {each["numbers"] is None for each in differences if each} == {True}
    dx = broken(("dexps * exps", "-dexps * exps"))["values"]["x"]["difference"]
    assert dx["norm"] > 1
    assert not dx["is_rounding"]


def test_a_gradient_that_could_not_be_measured_is_neither_right_nor_wrong() -> None:
    lines = [
        "def forward(h):", "    v = np.linalg.inv(h)", "    return v, v",
        "def backward(dv, v):", "    dh = -v.T @ dv @ v.T", "    return dh",
    ]  # fmt: skip
    hilbert = 1 / (np.arange(10) + np.arange(10)[:, None] + 1.0)
    found = page_data(sheet("\n".join(lines), {"h": hilbert}), [])
    (verdict,) = found["values"]["h"]["verdicts"]
    assert verdict["status"] == "unmeasured"
    assert "could not be measured" in verdict["messages"][0]
    assert (found["right"], found["total"]) == (0, found["unmeasured"])
    files = site.render_files([found])
    text = " ".join(files["own.html"].split())
    assert f"? 0 of {found['total']} gradients right, {found['total']} could not be" in text
    assert "? not measured</button>" in text
    assert f"? {found['total']} gradients could not be measured" in files["index.html"]


def test_only_arrays_of_real_numbers_are_shown() -> None:
    text = edited(
        FORWARD,
        ("    a = ", "    pair = np.array([x, 1, None], object)\n    mask = z > 0\n    a = "),
    )
    values = page_data(sheet(text + BACKWARD), [])["values"]
    assert "pair@1" not in values
    assert values["mask@2"]["value"]["is_mask"]
    assert not values["z@0"]["value"]["is_mask"]


def test_the_axes_of_a_value_are_those_that_the_source_states(softmax: Json, gpt: Json) -> None:
    assert softmax["values"]["x"]["axes"] == ["", "", "V"]
    assert softmax["values"]["total@3"]["axes"] == ["", "", ""]
    assert gpt["values"]["tokens"]["axes"] == ["B", "T"]
    stated = page_data(sheet(FORWARD + BACKWARD), [])["values"]
    assert [stated[key]["axes"] for key in ("x", "z@0", "a@1")] == [[], ["N", "K"], []]


def test_every_line_of_a_question_is_on_the_page(softmax: Json) -> None:
    closed = softmax["closed_form"]["lines"]
    texts = {line["id"]: line["text"] for line in (*lines(softmax).values(), *closed)}
    assert len(softmax["questions"]) == 10
    for found in softmax["questions"]:
        assert texts[found["id"]] == found["before"] != found["after"]
        assert {*found["lines"]} <= {*texts} - {found["id"]}
        assert any(not each["ok"] and each["problem"] for each in found["symptoms"])


def test_a_backward_that_raises_is_stopped_at_a_line() -> None:
    edits = ("dexps = dprobs / total", "dexps = dprobs * 2"), ("dexps * exps", "dexps @ exps")
    shown = broken(*edits)
    assert shown["raises_at"] == 43
    assert lines(shown)["dexps = dprobs * 2"]["status"] == "wrong"
    assert lines(shown)["dx = dshifted"]["status"] == lines(shown)["return dx"]["status"]
    assert lines(shown)["return dx"]["status"] == "unreached"


def test_a_difference_is_taken_before_it_is_rounded() -> None:
    expected, found = np.array([1.0, 1e6]), np.array([1 + 1e-9, 1e6 + 1e-3])
    shown = difference(found, expected)
    assert shown is not None
    assert shown["numbers"] == [1e-9, 0.001]


# Error curves


def curves_of(text: str = FORWARD + BACKWARD, seed: int = 0) -> tuple[list[float], list[float]]:
    """Return the errors of the central difference and of the complex step."""
    found = error_curves(truth(text, seed=seed).total(Value("z", 0)), seed)
    assert found is not None
    return found["central"], found["complex"]


def error_at(errors: list[float], step: float) -> float:
    return errors[int(np.argmin(np.abs(np.log10(STEPS / step))))]


def slope(errors: list[float]) -> float:
    """Return the slope from 1e-2 to 1e-4, where only the curvature is off."""
    return float(np.log10(error_at(errors, 1e-2)) - np.log10(error_at(errors, 1e-4))) / 2


@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_the_complex_step_has_no_rounding_at_small_steps(seed: int) -> None:
    central, complex_step = curves_of(seed=seed)
    assert slope(central) == pytest.approx(2, abs=0.02)
    assert slope(complex_step) == pytest.approx(2, abs=0.02)
    best = int(np.argmin(central))
    assert 1e-7 < STEPS[best] < 1e-4
    assert error_at(central, 1e-13) > 1e4 * central[best]
    assert np.array(complex_step)[STEPS <= 1e-8].max() < 1e-14


def test_a_forward_without_complex_numbers_has_no_complex_step() -> None:
    central, complex_step = curves_of(edited(FORWARD, ("np.tanh(z)", "np.abs(z)")))
    assert complex_step == []
    assert error_at(central, 1e-5) < 1e-8


def test_a_tensor_that_is_zero_or_measured_along_directions_has_no_error_curves() -> None:
    text = "def forward(x):\n    z = x * 0\n    y = z.sum() * 0 + x.sum()\n    return y, 0"
    assert error_curves(truth(text, {"x": X}).total(Value("z", 0))) is None
    args = {"x": np.ones(2001)}
    measured = truth("def forward(x):\n    y = x * x\n    return y, 0", args)
    assert error_curves(measured.total(Value("x", -1))) is None
