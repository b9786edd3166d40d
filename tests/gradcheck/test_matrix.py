"""The matrix of planted bugs and those who noticed them, in text, JSON and HTML."""

import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from tinygpt_np.gradcheck.detectors import MutantResult
from tinygpt_np.gradcheck.matrix import DETECTORS, Matrix, draw, in_order, percent
from tinygpt_np.gradcheck.mutations import EQUIVALENT

SEEN, UNSEEN = dict.fromkeys(DETECTORS, True), dict.fromkeys(DETECTORS, False)
BUG = MutantResult(
    "linear", "backward", "sign", 41, "dx = <a>", "dx = -<a>", SEEN | {"loss": False}, "",
    "x: off by 2 of its norm; the sign is wrong", "",
)  # fmt: skip
CRASH = replace(BUG, kind="transpose", after="dx = a.T", raised="ValueError: no", detected=SEEN)
SOFTMAX = replace(BUG, operation="softmax", detected=SEEN)
LISTED = [
    replace(BUG, operation=r, function=f, before=b, after=a, reason=reason, detected=UNSEEN)
    for (r, f, b, a), reason in EQUIVALENT.items()
    if r == "embedding"
]  # fmt: skip
MATRIX = in_order([SOFTMAX, CRASH, BUG, *LISTED], ("linear", "softmax", "embedding"), True)


def text(matrix: Matrix) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(draw(matrix))
    return out.getvalue()


def test_bugs_are_the_mutants_that_change_a_gradient() -> None:
    assert len(MATRIX.results) == 3 + len(LISTED)
    assert set(map(id, MATRIX.bugs)) == {id(BUG), id(CRASH), id(SOFTMAX)}


def test_it_counts_by_judge_kind_and_room() -> None:
    assert MATRIX.detected("complex") == (3, 3)
    assert MATRIX.detected("loss") == (2, 3)
    assert MATRIX.detected("loss", kind="sign") == (1, 2)
    assert MATRIX.detected("loss", kind="sign", operation="softmax") == (1, 1)
    assert MATRIX.detected("loss", kind="axis") == (0, 0)


def test_the_order_is_that_of_the_source_however_the_results_came() -> None:
    again = in_order([*LISTED[::-1], BUG, SOFTMAX, CRASH], ("softmax", "linear", "embedding"), True)
    assert again == MATRIX


def test_it_is_without_error_when_every_bug_was_noticed() -> None:
    assert MATRIX.errors == []


def test_a_bug_that_the_complex_step_missed_is_an_error() -> None:
    missed = replace(BUG, detected=SEEN | {"complex": False})
    (error,) = Matrix((missed, *LISTED), ("linear", "embedding")).errors
    assert error.startswith("linear.backward:41: dx = <a> → dx = -<a>: survived")


def test_a_listed_mutant_that_is_made_no_more_is_an_error() -> None:
    (error,) = Matrix(tuple(LISTED[1:]), ("embedding",)).errors
    assert error.endswith("listed as changing nothing, but no such mutant")


def test_a_run_that_was_stopped_misses_no_listed_mutants() -> None:
    assert Matrix((BUG,), ("linear", "embedding"), complete=False).errors == []


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((10, 10), "0 %"), ((999, 1000), "0.1 %"), ((1, 2), "50 %"), ((0, 3), "100 %")],
)
def test_a_share_is_never_rounded_to_nothing(counts: tuple[int, int], expected: str) -> None:
    assert percent(*counts) == expected


def test_the_text_has_counts_judges_and_reasons() -> None:
    found = " ".join(text(MATRIX).split())
    assert f"{3 + len(LISTED)} mutants: 3 bugs (1 of them make the backward raise)" in found
    assert "sign 1/1 1/1" in found
    assert "the loss falls by half in training 1 3 33 %" in found
    assert "-0 is 0" in found


def test_the_dictionary_is_json_and_complete() -> None:
    found = json.loads(json.dumps(MATRIX.to_dict()))
    assert found["ok"] is True
    assert found["detectors"]["loss"]["detected"] == 2
    assert [mutant["before"] for mutant in found["mutants"]].count("dx = <a>") == 3


class Page(HTMLParser):
    """Notes the words of a page, its tags, and what it loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.open, self.loaded = list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    page = Page(MATRIX.page())
    assert page.open == []
    assert page.loaded == []


def test_the_page_shows_every_mutant_as_it_is() -> None:
    words = " ".join(" ".join(Page(MATRIX.page()).words).split())
    for result in MATRIX.results:
        assert f"{result.before} {result.after}" in words
    assert "x: off by 2 of its norm; the sign is wrong" in words
    assert "changes nothing: -0 is 0" in words


def test_the_page_says_when_the_run_was_stopped() -> None:
    stopped = replace(MATRIX, complete=False)
    assert "The run was interrupted" in stopped.page()
    assert "The run was interrupted" not in MATRIX.page()


def test_the_page_shows_an_error() -> None:
    missed = replace(BUG, detected=SEEN | {"complex": False})
    assert "survived, and is not listed" in Matrix((missed,), ("linear",)).page()
