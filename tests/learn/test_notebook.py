"""The notebooks of the exercises, as files and in a kernel."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.cells import code_cells, written
from helpers.html_pages import Page
from helpers.optional import needs

from tinygpt_np.learn.cells import NotebookError
from tinygpt_np.learn.course import course, find
from tinygpt_np.learn.notebook import cells_of, write
from tinygpt_np.learn.skeleton import skeleton
from tinygpt_np.storage.files import FileError

EXERCISES = [each.name for each in course() if each.kind != "training"]
every_exercise = pytest.mark.parametrize("name", EXERCISES)
ENDLESS = "    return dx", "    while True:\n        dx = dx + 0\n    return dx"
WRONG = "dexps = dprobs / total", "dexps = dprobs * total"


@every_exercise
def test_a_notebook_is_valid_and_its_code_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    nbformat = needs("nbformat")
    path = write(find(name), tmp_path / "learn")
    assert path == tmp_path / "learn" / f"{name}.ipynb"
    book: Any = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    kinds = [cell.cell_type for cell in book.cells]
    assert kinds == ["code", "markdown", "code", "code", "code", "markdown"]
    install, _, setup, backward, check, _ = [cell.source for cell in book.cells]
    for each in (install, setup, backward, check):
        compile(each, name, "exec")
    code = "\n".join([setup.replace("import tinygpt_np as tg\n", "", 1), backward])
    text = ast.Module(ast.parse(skeleton(find(name))).body[1:], [])
    assert ast.dump(ast.parse(code)) == ast.dump(text)
    assert backward.startswith(f"# exercise: {name}\n")
    assert check == "tg.learn.check(backward)"


@every_exercise
def test_the_question_is_the_docstring_with_its_formulas_as_code(name: str) -> None:
    question = cells_of(find(name))[1].source
    text, *code = question.split("```text\n")
    blocks = [part.partition("\n```")[0] for part in code]
    text += "".join(part.partition("\n```")[2] for part in code)
    found = [line for block in blocks for line in block.splitlines()]
    docstring = ast.get_docstring(ast.parse(skeleton(find(name)))) or ""
    indented = [line for line in docstring.splitlines() if line.startswith("    ")]
    assert found == [line for line in indented if "tinygpt learn" not in line]
    assert "    " not in text
    assert re.search("Write backward|One line of backward is wrong", text)


def test_stars_and_underscores_in_a_question_are_no_markup() -> None:
    question = cells_of(find("linear"))[1].source
    assert "dx, dweight, dbias" in question
    assert "loss\\_1" in cells_of(find("micro_batches"))[1].source


@pytest.mark.parametrize(
    ("name", "following"),
    [("softmax", "cross_entropy"), ("division", "linear"), ("relu", "bug_01")],
)
def test_the_last_cell_names_the_next_exercise(name: str, following: str) -> None:
    assert f"tinygpt learn notebook {following}`" in cells_of(find(name))[-1].source


def test_a_notebook_is_never_overwritten(tmp_path: Path) -> None:
    needs("nbformat")
    path = write(find("sum"), tmp_path)
    path.write_text("mine")
    with pytest.raises(FileError, match=r"sum\.ipynb exists already"):
        write(find("sum"), tmp_path)
    assert path.read_text() == "mine"


def test_the_training_has_no_notebook(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match=r"^training has no notebook; tinygpt learn start"):
        write(find("training"), tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.fixture(scope="module")
def outputs() -> list[dict[str, Any]]:
    """Return what the checks in an executed notebook show, in the order of the cells."""
    client, nbformat = needs("nbclient"), needs("nbformat")
    needs("ipykernel")
    install, setup, backward, check = code_cells("softmax")
    limit = "import tinygpt_np.learn.sandbox\ntinygpt_np.learn.sandbox.LIMIT = 1"
    sources = [
        *(install, setup, backward, check),
        *(written("softmax"), check),
        *(written("softmax", WRONG), check),
        *(limit, written("softmax", ENDLESS), check),
    ]
    code = nbformat.v4.new_code_cell
    book = nbformat.v4.new_notebook(cells=[code(source) for source in sources])
    client.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    return [each["data"] for cell in book.cells for each in cell.outputs]


@pytest.mark.slow  # Starts a kernel.
@pytest.mark.parametrize(
    ("number", "facts"),
    [
        (0, ("0 of 5 lines", "5 open", "next: write line 7")),
        (1, ("5 of 5 lines", "✓ solved", "next: tinygpt learn notebook cross_entropy")),
        (2, ("line 7: dexps = dprobs * total", "likely cause multiplied, not divided")),
        (3, ("was still running after 1 s; does a loop never end?",)),
    ],
    ids=["untouched", "solved", "wrong", "endless"],
)
def test_a_kernel_shows_the_verdict_on_the_cell(
    outputs: list[dict[str, Any]], number: int, facts: tuple[str, ...]
) -> None:
    assert len(outputs) == 4
    page = Page(outputs[number]["text/html"])
    for fact in facts:
        assert fact in page.text
    assert "\x1b" not in outputs[number]["text/plain"]
