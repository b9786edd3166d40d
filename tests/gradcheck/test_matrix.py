"""The matrix of planted bugs and the checks that detect them, in text, JSON and HTML."""

import io
from dataclasses import replace

from helpers.html_pages import Page
from rich.console import Console

from tinygpt_np.gradcheck.detectors import MutantResult, RightResult
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS
from tinygpt_np.gradcheck.matrix import DETECTORS, BugMatrix, draw, in_order, percent
from tinygpt_np.gradcheck.mutations import EQUIVALENT

SEEN, UNSEEN = dict.fromkeys(DETECTORS, True), dict.fromkeys(DETECTORS, False)
BUG = MutantResult(
    "linear", "backward", "sign", 41, "dx = <a>", "dx = -<a>", SEEN | {"loss": False}, "",
    "x: off by 2 of its norm; the sign is wrong", "", "the sign is wrong: negate <dx>",
)  # fmt: skip
CRASH = replace(
    BUG, kind="transpose", after="dx = a.T", raised="ValueError: no", detected=SEEN, cause=""
)
SOFTMAX = replace(BUG, operation="softmax", detected=SEEN)
LISTED = [
    replace(BUG, operation=r, function=f, before=b, after=a, reason=reason, detected=UNSEEN)
    for (r, f, b, a), reason in EQUIVALENT.items()
    if r == "embedding"
]  # fmt: skip
MATRIX = in_order([SOFTMAX, CRASH, BUG, *LISTED], ("linear", "softmax", "embedding"), True)


def drawn(matrix: BugMatrix) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(draw(matrix))
    return out.getvalue()


def test_it_counts_by_detector_kind_and_operation_in_the_order_of_the_source() -> None:
    results = [*LISTED[::-1], BUG, SOFTMAX, CRASH]
    assert in_order(results, ("softmax", "linear", "embedding"), True) == MATRIX
    assert {id(bug) for bug in MATRIX.bugs} == {id(BUG), id(CRASH), id(SOFTMAX)}
    assert MATRIX.detected("complex") == (3, 3)
    assert MATRIX.detected("loss") == (2, 3)
    assert MATRIX.detected("loss", kind="sign") == (1, 2)
    assert MATRIX.detected("loss", kind="sign", operation="softmax") == (1, 1)


def test_a_check_that_accuses_the_right_backward_has_detected_nothing_there() -> None:
    rights = [
        RightResult("linear", "backward", ("jax", "jax, init")),
        RightResult("softmax", "backward", ("jax, init",)),
    ]
    matrix = in_order([*rights, *MATRIX.results], MATRIX.operations, True)
    assert [matrix.detected(name) for name in ("torch", "jax", "jax, init")] == [
        (3, 3),
        (1, 1),
        (0, 0),
    ]
    found = " ".join(drawn(matrix).split())
    assert "jax.test_util.check_grads, reverse mode 0 1 0 % accuses 1 of 2 right backwards" in found
    assert "initialisation 0 0 - accuses 2 of 2 right backwards" in found
    assert "accuses 2 of 2 right backwards" in Page(matrix.page()).text
    counted = matrix.to_dict()["detectors"]
    assert [counted[name]["accused"] for name in ("torch", "jax", "jax, init")] == [0, 1, 2]


def test_the_checks_of_libraries_are_shown_only_if_they_were_used() -> None:
    used = [name for name in DETECTORS if name.partition(",")[0] not in LIBRARY_CHECKS]
    results = [
        replace(result, detected={name: result.detected[name] for name in used})
        for result in MATRIX.results
    ]
    own = replace(MATRIX, results=tuple(results))
    assert own.detectors == used
    assert MATRIX.detectors == [*DETECTORS]
    for matrix, is_shown in ((own, False), (MATRIX, True)):
        assert ("check_grads" in drawn(matrix)) is is_shown
        assert ("check_grads" in Page(matrix.page()).text) is is_shown
        assert ("torch fast" in matrix.to_dict()["detectors"]) is is_shown


def test_the_causes_are_counted_by_kind_and_verdict() -> None:
    wrong = replace(BUG, cause="a transpose is missing: transpose `a`")
    both = replace(BUG, cause="a factor too many: leave out `a`, or the sign is wrong: negate `a`")
    model = replace(BUG, operation="gpt", cause="")
    matrix = replace(MATRIX, results=(*MATRIX.results, wrong, both, model))
    assert dict(matrix.causes()) == {"right": 2, "one of two": 1, "none": 1, "wrong": 1}
    assert matrix.causes("transpose")["none"] == 1
    named = {"a factor too many or the sign is wrong": 1, "a transpose is missing": 1}
    assert matrix.named("sign") == {"the sign is wrong": 2, **named}
    found = " ".join(drawn(matrix).split())
    assert "sign 2 1 1 the sign is wrong 2, " in found
    assert "all 2 1 1 1" in found
    none = {"right": 0, "one of two": 0, "none": 1, "wrong": 0, "named": {"": 1}}
    assert matrix.to_dict()["causes"]["transpose"] == none
    page = Page(matrix.page())
    assert (page.open, page.loaded) == ([], [])
    assert "all 2 1 1 1" in page.text
    assert "the sign is wrong: negate <dx>" in page.text
    # The bugs in models are not explained.
    assert "Causes" not in drawn(replace(MATRIX, results=(model,)))


def test_an_error_is_a_surviving_bug_or_a_listed_mutant_that_is_not_made() -> None:
    assert MATRIX.errors == []
    survivor = replace(BUG, detected=SEEN | {"complex": False})
    found = BugMatrix((survivor, *LISTED), ("linear", "embedding"))
    assert "survived, and is not listed" in found.page()
    (error,) = found.errors
    assert error.startswith("linear.backward:41: dx = <a> → dx = -<a>: survived")
    (error,) = BugMatrix(tuple(LISTED[1:]), ("embedding",)).errors
    assert error.endswith("listed as changing nothing, but no such mutant")
    # An interrupted run has not made all of them.
    assert BugMatrix((BUG,), ("linear", "embedding"), complete=False).errors == []


def test_a_missed_bug_is_never_rounded_to_0_percent() -> None:
    assert [percent(*each) for each in ((10, 10), (999, 1000), (1, 2))] == ["0 %", "0.1 %", "50 %"]


def test_the_text_has_counts_checks_and_reasons() -> None:
    found = " ".join(drawn(MATRIX).split())
    assert f"{3 + len(LISTED)} mutants: 3 bugs (1 of them make the backward raise)" in found
    assert "sign 1/1 1/1" in found
    assert "the loss falls by half in training 1 3 33 %" in found
    assert "sign 0/2 0/2 0/2 0/2 1/2 0/2" in found
    assert "-0 is 0" in found


def test_the_page_is_well_formed_loads_nothing_and_shows_every_mutant_as_it_is() -> None:
    page = Page(MATRIX.page())
    assert (page.open, page.loaded) == ([], [])
    for result in MATRIX.results:
        assert f"{result.before} {result.after}" in page.text
    assert "x: off by 2 of its norm; the sign is wrong" in page.text
    assert "changes nothing: -0 is 0" in page.text
    assert "The run was interrupted" not in page.text
