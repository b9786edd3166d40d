"""The output of a check and of a study in a notebook, in a kernel and in a browser."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import Page, lowest_contrast, texts
from helpers.html_pages import Page as Html
from helpers.html_pages import html_of
from helpers.optional import needs
from helpers.processes import printed

import tinygpt_np as tg
from tinygpt_np.study.source.parse import StudyError

X = np.random.default_rng(0).standard_normal((3, 5))
CELLS = [
    """
import numpy as np
import tinygpt_np as tg

x = np.random.default_rng(0).normal(size=(3, 5))
""",
    """
%matplotlib --list
def forward(x):
    exps = np.exp(x)
    total = exps.sum(axis=-1, keepdims=True)
    probs = exps / total
    return probs, (exps, total, probs)
""",
    """
def backward(dprobs, saved):
    exps, total, probs = saved
    dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)
    dexps = dprobs / total
    dexps += dtotal
    dx = dexps * exps
    return dx

def forgetful(dprobs, saved):
    exps, total, probs = saved
    dexps = dprobs / total
    dx = dexps * exps  # <b>
    return dx
""",
    "tg.gradcheck.check(forward, backward, (x,))",
    "tg.gradcheck.check(forward, forgetful, (x,), title='<script>alert(1)</script>')",
    """
config = tg.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4)
tokens = np.array([[0, 1, 2, 3]])
tg.gradcheck.check_model(tg.GPT(config, dtype="float64"), tokens, tokens)
""",
    "import tinygpt_np.study.source.parse\ntg.study(forward, backward, (x,))",
    "tg.study(forward, forgetful, (x,), title='<script>alert(1)</script>')",
    "study = tg.study(forward, forgetful, (x,))\nprint(study.ok, study.first_wrong.text)",
]
THEMES = {"light": ("true", "#fff"), "dark": ("false", "#111")}


def forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    exps = np.exp(x)
    total = exps.sum(axis=-1, keepdims=True)
    probs = exps / total
    return probs, (exps, total, probs)


def backward(dprobs: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    exps, total, probs = saved
    dtotal = -(dprobs * probs / total).sum(axis=-1, keepdims=True)
    dexps = dprobs / total
    dexps += dtotal
    dx = dexps * exps
    return dx


def wrong(dprobs: np.ndarray, saved: tuple[Any, ...]) -> np.ndarray:
    exps, total, probs = saved
    dtotal = (dprobs * probs / total).sum(axis=-1, keepdims=True)
    dexps = dprobs / total
    dexps += dtotal
    dx = dexps * exps
    return dx


def test_a_study_has_a_verdict_the_first_wrong_line_and_a_row_for_each_gradient() -> None:
    right = tg.study(forward, backward, (X,), seed=3)
    assert (right.ok, right.first_wrong) == (True, None)
    assert all(row.ok for row in right.rows)
    study = tg.study(forward, wrong, {"x": X}, title="my softmax")
    first = study.first_wrong
    assert first is not None
    assert first.text == "dtotal = (dprobs * probs / total).sum(axis=-1, keepdims=True)"
    assert (
        Path(__file__).read_text(encoding="utf-8").splitlines()[first.line - 1].strip()
        == first.text
    )
    assert "dtotal: off by 2" in first.message
    assert first.cause == "the sign is wrong: negate `dtotal`"
    assert not study.ok
    assert [row.ok for row in study.rows].count(False) >= 2


def test_the_text_and_the_page_of_a_study_say_the_same() -> None:
    study = tg.study(forward, wrong, (X,), title="<b>bold</b>")
    html = html_of(study)
    page = Html(html)
    assert (page.open, page.loaded) == ([], [])
    assert repr(study) == str(study)
    for part in ("dtotal: off by 2 of its norm", "likely cause: the sign is wrong", "✗ wrong"):
        count = str(study).count(part)  # The text has a legend too.
        assert count == (2 if part == "✗ wrong" else 1)
        assert page.text.count(part) == count + 1
    assert "<b>bold</b>" in page.text
    assert html.count("<figure>") == 3


def test_the_module_is_a_function_before_and_after_its_modules_are_imported() -> None:
    define = """
import numpy as np
import tinygpt_np as tg

def softmax(study):
    softmax = tg.ops.softmax
    print(study(softmax.forward, softmax.backward_steps, {"x": np.ones(3)}).ok)
"""
    use, load = "softmax(tg.study)\n", "import tinygpt_np.study.source.parse\n"
    assert printed(define + use + load + use).split() == ["True", "True"]
    assert printed(define + load + use).split() == ["True"]
    assert printed(define + "from tinygpt_np import study\nsoftmax(study)").split() == ["True"]


def test_an_array_whose_gradient_is_not_returned_has_none() -> None:
    dropout = tg.ops.dropout
    assert tg.study(dropout.forward, dropout.backward, (X, 2.0 * (X > 0))).ok


def test_functions_that_cannot_be_studied_are_refused_with_the_reason() -> None:
    names: dict[str, Any] = {}
    exec("def forward(x): return x, None", names)
    without_source: list[Any] = [names["forward"], np.sin, partial(forward), 3]
    for function in without_source:
        for pair in ((function, backward), (forward, function)):
            with pytest.raises(StudyError, match=r"the source of .* is not known"):
                tg.study(*pair, (X,))


def test_functions_inside_a_function_can_be_studied_with_the_names_around_them() -> None:
    scale = 3.0

    def scaled(x: np.ndarray) -> tuple[np.ndarray, None]:
        y = scale * x
        return y, None

    def gradient(dy: np.ndarray, saved: None, factor: float = 2.0) -> np.ndarray:
        dx = factor * dy
        return dx

    def right(dy: np.ndarray, saved: None) -> np.ndarray:
        dx = scale * dy
        return dx

    assert tg.study(scaled, right, (X,)).ok
    first = tg.study(scaled, gradient, (X,)).first_wrong
    assert first is not None
    assert first.text == "dx = factor * dy"


@pytest.fixture(scope="module")
def notebook() -> Any:
    """Return the executed notebook."""
    client, nbformat = needs("nbclient"), needs("nbformat")
    needs("ipykernel")
    code = nbformat.v4.new_code_cell
    book = nbformat.v4.new_notebook(cells=[code(cell.strip()) for cell in CELLS])
    client.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return book


def shown(notebook: Any) -> list[str]:
    """Return the HTML of the cells that have some."""
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]


@pytest.mark.slow  # Starts a kernel.
def test_a_notebook_shows_checks_and_studies_of_functions_in_its_cells(notebook: Any) -> None:
    pages = [Html(html).text for html in shown(notebook)]
    assert len(pages) == 5
    right, wrong, model, right_study, wrong_study = pages
    assert "every gradient is right" in right
    assert "<script>alert(1)</script> WRONG" in wrong
    assert "every gradient is right" in model
    assert "all right" in right_study
    assert "In[3], line 13: dx = dexps * exps" in wrong_study or "dx" in wrong_study
    *_, last = notebook.cells
    assert last.outputs[0]["text"].startswith("False d")
    assert all(
        "text/plain" in output.get("data", {})
        for cell in notebook.cells[3:8]
        for output in cell.outputs
    )


@pytest.mark.slow  # Starts a kernel and a browser.
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [480, 1100])
def test_the_outputs_can_be_read_in_any_theme_and_width(
    page: Page, notebook: Any, theme: str, width: int, tmp_path: Path
) -> None:
    is_light, background = THEMES[theme]
    body = "\n".join(shown(notebook))
    path = tmp_path / "notebook.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>notebook</title>"
        f'<body data-jp-theme-light="{is_light}" style="background:{background}">{body}</body>',
        encoding="utf-8",
    )
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path.as_uri())
    assert lowest_contrast(page)["ratio"] >= 4.5, lowest_contrast(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.locator(".tinygpt > pre").first.is_visible()
    assert texts(page, ".blame code")
    for selector in (".tinygpt .wrong", ".map .plus", ".map .minus", ".map .worst"):
        assert page.locator(selector).first.is_visible(), selector
    paper, plus, minus = (
        page.locator(each).first.evaluate("e => getComputedStyle(e).backgroundColor")
        for each in (".body", ".map .plus", ".map .minus")
    )
    assert (paper == "rgb(255, 255, 255)") is (theme == "light")
    assert len({paper, plus, minus}) == 3


@pytest.mark.slow  # Starts a browser.
def test_without_its_style_the_text_is_shown(page: Page) -> None:
    html = html_of(tg.study(forward, wrong, (X,)))
    start, end = html.index("<style>"), html.index("</style>")
    page.set_content(html[:start] + html[end + len("</style>") :])
    assert page.locator("pre").is_visible()
    assert not page.locator(".body").is_visible()
