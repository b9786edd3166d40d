"""Chapters as notebooks: valid, complete, and executed with their pictures."""

import ast
from pathlib import Path
from typing import Any

import pytest
from helpers.optional import needs
from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingTypeStubs]

from tinygpt_np import lecture
from tinygpt_np.learn.cells import install_cell
from tinygpt_np.lecture import notebook, sections
from tinygpt_np.lecture.notebook import cells, markdown

CHAPTERS = lecture.chapters()
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=[c.name for c in CHAPTERS])


@every_chapter
def test_a_notebook_has_the_text_and_all_the_code_of_the_chapter(chapter: lecture.Chapter) -> None:
    first, introduction, imports, *rest = cells(chapter)
    assert first == ("code", install_cell())
    assert introduction.source.startswith(f"# {chapter.number}  {chapter.title}\n\nIn the video: ")
    code = [cell.source for cell in (imports, *rest) if cell.kind == "code"]
    statements = [node for source in code for node in ast.parse(source).body]
    content = sections.read(chapter.path)
    in_main = [node for section in content.sections for node in section.statements]
    dumped = [ast.dump(node) for node in statements]
    assert [text for text in dumped if text in {*map(ast.dump, in_main)}] == [
        ast.dump(node) for node in in_main
    ]
    titles = [cell.source.partition("\n")[0] for cell in rest if cell.kind == "markdown"]
    assert titles == [f"## {section.title}" for section in content.sections]


@pytest.mark.parametrize("name", ["bigram", "matmul", "softmax"])
def test_the_code_cells_run_one_after_another(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    with threadpool_limits(None):  # Restores what a cell changes.
        for cell in cells(lecture.find(name)):
            if cell.kind == "code":
                exec(cell.source, names)
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_markdown_shows_signs_as_they_are_and_code_between_backticks() -> None:
    assert markdown("# T", ["a_b * $2 <3 `x_y * 2`", "| ~"]) == (
        "# T\n\na\\_b \\* \\$2 \\<3 `x_y * 2`\n\n\\| \\~"
    )


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return the notebooks of all chapters, written and read again."""
    nbformat = needs("nbformat")
    paths = notebook.write(CHAPTERS, tmp_path_factory.mktemp("books"))
    return [nbformat.read(path, as_version=4) for path in paths]


def test_all_notebooks_are_valid(books: list[Any]) -> None:
    for book in books:
        needs("nbformat").validate(book)


def executed(book: Any, folder: Path) -> list[Any]:
    """Return the outputs of a notebook."""
    needs("ipykernel")
    client = needs("nbclient")
    resources = {"metadata": {"path": str(folder)}}
    client.NotebookClient(book, timeout=240, kernel_name="python3", resources=resources).execute()
    return [output for cell in book.cells for output in cell.get("outputs", [])]


@pytest.mark.slow  # Starts kernels.
@pytest.mark.parametrize(
    ("number", "text", "pictures"),
    [
        (4, "on average, standard deviation", 0),
        (7, "rows 0 to 4 stay", 0),
        (10, "largest difference from ops.softmax", 1),
        (13, "last row, untrained", 2),
    ],
)
def test_a_notebook_runs_and_shows_pictures(
    books: list[Any], tmp_path: Path, number: int, text: str, pictures: int
) -> None:
    outputs = executed(books[number - 1], tmp_path)
    assert text in "".join(output.get("text", "") for output in outputs)
    kinds = {output.output_type for output in outputs}
    assert kinds <= {"stream", "display_data"}  # No cell ends in a value.
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
