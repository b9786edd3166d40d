"""The verdicts on lines: each given right inputs, in the words of the exercise."""

import pytest
from helpers.learners import planted, solved, verdict_on

from tinygpt_np.learn.judge import Verdict


def edited(name: str, *changes: tuple[str, str]) -> Verdict:
    """Return the verdict on a solved exercise with some parts changed."""
    text = solved(name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return verdict_on(name, text)


def wrong_lines(verdict: Verdict) -> dict[str, str]:
    """Return the lines that are not right, with their statuses."""
    return {
        each.text.split(" = ")[0]: each.status for each in verdict.lines if each.status != "right"
    }


def test_a_line_after_a_wrong_shape_is_checked_with_the_right_one() -> None:
    found = edited(
        "layer_norm",
        ("std).sum(axis=-1, keepdims=True)", "std).sum(axis=-1)"),
        ("dstd / (2 * std)", "dstd / std"),
        ("+ dvar / xhat.shape[-1]", "+ dvar"),
    )
    assert wrong_lines(found) == {"dstd": "shape", "dpadded_var": "wrong", "dsquare": "wrong"}
    assert found.right == 10


def test_a_line_that_drops_the_gradient_hides_no_mistake_before_it() -> None:
    found = edited(
        "softmax",
        ("dexps = dprobs / total", "dexps = dprobs * total"),
        ("dshifted = dexps * exps", "dshifted = exps"),
    )
    assert wrong_lines(found) == {"dexps": "wrong", "dshifted": "wrong"}
    assert found.mistake is not None
    assert found.mistake.line.name == "dexps"


def test_an_undefined_name_is_wrong_also_after_a_wrong_line() -> None:
    found = edited("exp", ("np.zeros_like(exps) + dtotal[:, None]", "dtotal"), ("* exps", "* no"))
    assert wrong_lines(found) == {"dexps": "shape", "dx": "wrong"}


def test_lines_after_one_that_raises_are_checked_with_the_right_value() -> None:
    found = edited("attention", ("dheads @ v.mT", "dheads @ v.T"))
    assert wrong_lines(found) == {"dkept": "wrong"}


def test_what_a_line_of_the_learners_own_spoils_is_not_tested() -> None:
    found = edited(
        "softmax", ("dshifted = dexps * exps", "other = nothing\n    dshifted = dexps * exps")
    )
    assert found.mistake is not None
    assert found.mistake.line.text == "other = nothing"
    assert wrong_lines(found) == {"other": "wrong", "dshifted": "untested", "dx": "untested"}


@pytest.mark.parametrize("change", ["da = dy\n    da *= b", "dy *= b\n    da = dy.copy()"])
def test_changing_an_input_is_the_mistake_and_not_the_line_that_reads_it(change: str) -> None:
    found = edited("product", ("da = dy * b", change))
    assert found.mistake is not None
    assert found.mistake.message.startswith("changes an input of backward")
    assert "*= b" in found.mistake.line.text


def test_a_missing_line_is_placed_under_its_quoted_line_and_is_one_of_the_exercise() -> None:
    text = solved("gelu")
    comment = text[: text.index("# bent = x + bend")].count("\n") + 1
    found = edited("gelu", ("    dx += dbent  # (...)\n", ""))
    assert found.mistake is not None
    line = found.mistake.line
    assert (line.status, line.text, line.number, line.blank) == ("missing", "dx += …", comment, 6)
    assert found.mistake.message.startswith("dx lacks the part through line ")
    number = text[: text.index("    bent = x + bend")].count("\n") + 1
    assert f"through line {number}," in found.mistake.message


def test_a_wrong_sign_of_a_term_that_broadcasts_is_no_wrong_shape() -> None:
    found = edited("layer_norm", ("dx += dmean", "dx -= dmean"))
    assert wrong_lines(found) == {"dx -= dmean / xhat.shape[-1]": "wrong"}


def test_what_np_add_at_returns_is_named() -> None:
    made = "dtable = np.zeros_like(table)  # (V, C)\n    np.add.at(dtable, ids, drows)"
    found = edited("gather", (made, "dtable = np.add.at(np.zeros_like(table), ids, drows)"))
    assert found.mistake is not None
    assert "np.add.at, return None" in found.mistake.kind


@pytest.mark.parametrize(
    ("returned", "message", "kind"),
    [
        ("dx, dbias, dweight", "returned: dweight: the shape must be (8, 7)", "the order is wrong"),
        ("dx, dweight, dbias, dx", "backward must return dx, dweight, dbias", ""),
        ("dz", "raises NameError: name 'dz' is not defined", ""),
    ],
)
def test_a_wrong_return_is_explained(returned: str, message: str, kind: str) -> None:
    found = edited("linear", ("return dx, dweight, dbias", f"return {returned}"))
    assert found.mistake is not None
    assert found.mistake.message.startswith(message)
    assert found.mistake.kind == kind
    assert {each.status for each in found.lines[:-1]} == {"right"}


def test_a_name_that_the_file_does_not_import_is_not_lent_by_the_package() -> None:
    found = edited("chain", ("import numpy as np", ""))
    assert "forward raises NameError: name 'np' is not defined" in found.problem


def test_an_error_is_given_in_percent_of_the_gradient() -> None:
    found = edited("softmax", ("dx = dshifted", "dx = 3 * dshifted"))
    assert found.mistake is not None
    assert found.mistake.message == "dx: off by 200 %"


def test_a_gradient_that_shares_memory_is_said_to_share_it_with_the_named_one() -> None:
    found = edited("sum", ("np.zeros_like(x) + drows", "np.broadcast_to(dy[:, None], x.shape)"))
    assert found.mistake is not None
    assert "dout" not in found.mistake.message
    assert "dy" in found.mistake.message


def test_a_line_of_the_source_that_fails_where_it_is_added_is_no_mistake_of_the_learner() -> None:
    text, _ = planted(solved("micro_batches"), "dweight += dweight_1", "dweight = dweight_1")
    mistake = verdict_on("micro_batches", text).mistake
    assert mistake is not None
    assert mistake.line.status == "missing"
    assert "lacks the part through" in mistake.message
