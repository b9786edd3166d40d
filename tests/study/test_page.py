"""What a page shows of a sheet: every line, its verdict, and the numbers behind it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from helpers.architecture import line_of

from tinygpt_np.study import bugs, targets
from tinygpt_np.study.page import page
from tinygpt_np.study.sheet import Sheet, study
from tinygpt_np.study.source import find

# In the loop over the layers.
ROUND = line_of("x, block = self.block_forward", "model", "gpt.py")
Json = dict[str, Any]


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return study(targets.named("softmax"))


@pytest.fixture(scope="module")
def softmax(sheet: Sheet) -> Json:
    return page(sheet, list(bugs.bugs("softmax")))


@pytest.fixture(scope="module")
def gpt() -> Json:
    return page(study(targets.named("gpt")), [])


def lines(of: Json) -> dict[str, Json]:
    """The backward lines of a page by their text, those of the steps."""
    return {line["text"]: line for row in of["rows"] for line in row["backward"]}


def row(of: Json, name: str) -> Json:
    """The forward line that sets a name."""
    return next(row for row in of["rows"] if name in [key.split("@")[0] for key in row["sets"]])


def broken(text: str, wrong: str) -> Sheet:
    """Softmax with another line in its steps."""
    target = targets.named("softmax")
    source = "\n".join(target.forward.lines)
    assert text in source
    backward = find(source.replace(text, wrong), "backward_steps", "ops/softmax.py")
    return study(replace(target, backwards=(backward,), functions=()))


def test_json_takes_all_of_it(softmax: Json, gpt: Json) -> None:
    for each in (softmax, gpt):
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_the_first_paragraph_is_the_summary(softmax: Json) -> None:
    assert softmax["summary"] == "Softmax: the last axis becomes a probability distribution."


def test_the_formulas_of_the_docstring_are_mathml(softmax: Json) -> None:
    found = [line for part in softmax["derivation"] for line in part.get("lines", [])]
    assert len(found) == 3
    assert all(line.startswith("<math") for line in found)


def test_every_gradient_is_counted(softmax: Json) -> None:
    assert (softmax["right"], softmax["all"], softmax["ok"]) == (6, 6, True)


def test_a_backward_line_stands_beside_the_line_it_undoes(softmax: Json) -> None:
    beside = [line["text"] for line in row(softmax, "exps")["backward"]]
    assert beside == ["dshifted = dexps * exps"]


def test_a_line_without_a_gradient_is_constant(softmax: Json) -> None:
    assert [row["line"] for row in softmax["rows"] if row["constant"]] == [25]


def test_the_arguments_are_set_by_the_head(softmax: Json) -> None:
    assert softmax["rows"][0]["sets"] == ["x"]


def test_a_line_tells_what_it_reads_on_both_sides(softmax: Json) -> None:
    assert "exps" in row(softmax, "total")["reads"]
    assert "dexps" in lines(softmax)["dshifted = dexps * exps"]["reads"]


def test_the_gradient_that_comes_in_is_given(softmax: Json) -> None:
    given = softmax["begin"]["given"]
    assert softmax["values"][given]["name"] == "probs"
    assert softmax["values"][given]["given"]


def test_a_name_stands_for_its_value_on_the_backward_side(softmax: Json) -> None:
    html = lines(softmax)["dshifted = dexps * exps"]["html"]
    assert 'data-name="dexps" data-value="exps@2"' in html


def test_a_name_that_is_set_again_is_another_value(gpt: Json) -> None:
    first, second = (r for r in gpt["rows"] if r["line"] == ROUND)
    assert first["sets"] != second["sets"]
    assert f'data-name="x" data-value="{first["sets"][0]}"' in second["html"]


def test_each_line_has_an_id_of_its_own(gpt: Json) -> None:
    ids = [line["id"] for row in gpt["rows"] for line in row["backward"]]
    assert len(ids) == len({*ids})


def test_each_round_of_a_loop_is_named(gpt: Json) -> None:
    rounds = [row["round"] for row in gpt["rows"] if row["line"] == ROUND]
    assert rounds == ["layer = 0", "layer = 1"]


def test_a_parameter_has_its_arrays_and_its_verdict(gpt: Json) -> None:
    param = gpt["params"]["ln_f.weight"]
    assert param["gradient"]["shape"] == param["value"]["shape"]
    assert [verdict["status"] for verdict in param["verdicts"]] == ["right"]


def test_the_parts_of_a_gradient_say_by_way_of_which_line_they_come(softmax: Json) -> None:
    verdicts = [v for v in softmax["values"]["exps@2"]["verdicts"] if v["part"]]
    assert [v["way"] for v in verdicts] == [
        "probs = exps / total", "total = exps.sum(axis=-1, keepdims=True)"
    ]  # fmt: skip


def test_a_value_knows_the_rows_that_read_it(softmax: Json) -> None:
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


def test_the_closed_form_names_what_it_has_no_gradient_of(softmax: Json) -> None:
    assert softmax["closed"]["together"] == ["shifted", "exps", "total"]
    assert softmax["closed"]["agreement"] < 1e-14


def test_a_rule_comes_with_its_formulas(softmax: Json) -> None:
    rule = row(softmax, "probs")["rule"]
    assert rule["name"] == "quotient"
    assert len(rule["formulas"]) == 3


def test_a_wrong_line_is_told_from_those_that_it_spoils() -> None:
    found = lines(page(broken("dshifted = dexps * exps", "dshifted = 2 * dexps * exps"), []))
    assert found["dshifted = 2 * dexps * exps"]["status"] == "wrong"
    assert found["dx = dshifted"]["status"] == "inherited"
    assert found["dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)"]["status"] == (
        "right"
    )


def test_a_gradient_of_the_wrong_shape_has_no_difference() -> None:
    found = page(broken("dx = dshifted", "dx = dshifted[0]"), [])
    assert found["values"]["x"]["difference"] is None


def test_a_bug_tells_which_lines_it_reddens(softmax: Json) -> None:
    found = next(b for b in softmax["bugs"] if b["after"] == "dshifted = dprobs * exps")
    assert found["blamed"] == found["id"] == "backward_steps:43"
    assert {line: red["status"] for line, red in found["red"].items()} == {
        "backward_steps:43": "wrong",
        "backward_steps:45": "inherited",
        "backward_steps:46": "inherited",
    }


def test_every_line_that_a_bug_names_is_on_the_page(softmax: Json) -> None:
    ids = {line["id"] for line in (*lines(softmax).values(), *softmax["closed"]["lines"])}
    for found in softmax["bugs"]:
        assert {found["id"], found["blamed"], *found["red"]} - {""} <= ids


def test_a_bug_that_raises_stops_the_backward() -> None:
    found = page(study(targets.named("linear")), list(bugs.bugs("linear")))["bugs"]
    raising = [bug for bug in found if "raises" in bug["says"]]
    assert raising
    assert all(bug["stopped"] for bug in raising)
    assert not all(bug["stopped"] for bug in found)


def test_a_backward_that_raises_says_at_which_line_it_stops() -> None:
    target = targets.named("softmax")
    text = "\n".join(target.backwards[0].lines)
    text = text.replace("dexps = dprobs / total", "dexps = dprobs * 2")
    text = text.replace("dshifted = dexps * exps", "dshifted = dexps @ exps")
    changed = find(text, "backward_steps", target.where)
    shown = page(study(replace(target, backwards=(changed,), functions=())), [])
    assert shown["stops"] == 43
    lines = {line["text"]: line["status"] for row in shown["rows"] for line in row["backward"]}
    assert lines["dexps = dprobs * 2"] == "wrong"
    assert lines["dx = dshifted"] == lines["return dx"] == "unreached"


def test_what_cannot_be_compared_has_no_figure() -> None:
    target = targets.named("softmax")
    text = "\n".join(target.backwards[1].lines)
    changed = find(text.replace("dx = probs * (", "dx = 0 * (", 1), "backward", target.where)
    wrong = find(text.replace("return dx", "return dx[0]"), "backward", target.where)
    for closed in (changed, wrong):
        backwards = (target.backwards[0], closed)
        shown = page(study(replace(target, backwards=backwards, functions=())), [])
        json.dumps(shown, allow_nan=False)
