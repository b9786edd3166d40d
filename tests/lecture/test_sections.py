"""The sections of a chapter: their prose, what they need and the lines that matter."""

import sys
import traceback
from pathlib import Path

import pytest
from rich.console import Console

from tinygpt_np.lecture import Chapter, print_code, run, sections
from tinygpt_np.lecture.sections import Section

CHAPTER = '''"""00:00:00 Title

Question?
"""

import math

# The size.
N, UNUSED = 3, 0


def double(x):
    return 2 * helper(x)


# Explains show.
@print
def show(x):
    print(N, x)


def helper(x):
    return x


def side(x):
    return "below"


def main() -> None:
    # %% First
    # Two lines
    # of prose.
    #
    # Second paragraph.

    # a comment of the code
    y = double(2)  # ()
    print("y", y)

    # %% Second
    # Prose.

    total = [0]
    for n in range(3):
        # Says where it is.
        print(n)
        total.append(double(n))
    for n in range(3):
        word = f"{n}"
        print(word)
    if total:
        print(side(1))
    else:
        total.append(4)
    show(
        total,
    )


if __name__ == "__main__":
    main()
'''


@pytest.fixture
def found(tmp_path: Path) -> tuple[Section, ...]:
    """Return the sections of that chapter."""
    (tmp_path / "chapter_01_x.py").write_text(CHAPTER)
    content = sections.read(tmp_path / "chapter_01_x.py")
    assert content.imports == "import math"
    return content.sections


def test_a_section_has_a_title_paragraphs_and_its_complete_code(found: tuple[Section, ...]) -> None:
    first, second = found
    assert (first.title, second.title) == ("First", "Second")
    assert first.prose == ("Two lines of prose.", "Second paragraph.")
    code = '# a comment of the code\ny = double(2)  # ()\nprint("y", y)'
    assert first.code == code
    assert len(first.statements) == 2
    assert second.code.endswith("show(\n    total,\n)")


def test_definitions_come_with_the_first_section_that_needs_them(
    found: tuple[Section, ...],
) -> None:
    first, second = found
    double, helper = "def double(x):\n    return 2 * helper(x)", "def helper(x):\n    return x"
    assert first.needs == f"{double}\n\n{helper}"
    assert second.needs.splitlines()[:5] == [
        "# The size.",
        "N, UNUSED = 3, 0",
        "",
        "# Explains show.",
        "@print",
    ]
    assert "side" in second.needs
    assert "double" not in second.needs


def test_the_lines_that_matter_leave_out_what_only_prints(found: tuple[Section, ...]) -> None:
    first, second = found
    assert first.matters.splitlines()[-2:] == ["# a comment of the code", "y = double(2)  # ()"]
    assert first.matters.startswith("def double")
    assert second.matters.splitlines()[3:] == [
        "total = [0]",
        "for n in range(3):",
        "    total.append(double(n))",
        "if total:",
        "    print(side(1))",
        "else:",
        "    total.append(4)",
    ]


def chapter_of(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Chapter:
    """Return a chapter with this source, whose module can be imported."""
    path = folder / f"{folder.name}.py"
    path.write_text(source)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return Chapter(1, "x", "00:00:00", "Title", ("Question?",), path, path.stem)


def test_running_prints_title_prose_code_and_results_of_each_section_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = CHAPTER.replace("@print", "@staticmethod")
    run(chapter_of(source, tmp_path, monkeypatch), Console(width=60))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:6] == ["1.1  First", "", "Two lines of prose.", "", "Second paragraph.", ""]
    assert lines[6] == "│ def double(x):"
    assert "│     return 2 * helper(x)" in lines
    assert lines.index("│ y = double(2)  # ()") < lines.index("y 4") < lines.index("1.2  Second")
    # N of the module, and total, which uses double of the first section.
    assert [line for line in lines if line][-1] == "3 [0, 0, 2, 4]"


def test_code_that_is_wider_than_the_terminal_is_wrapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_code("y = double(x)  # a comment", Console(width=16))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["│ y = double(x)", "│ # a comment", ""]


def test_an_error_in_a_section_has_its_line_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = 'def main() -> None:\n    # %% One\n    # Prose.\n\n    print(f"{1 / 0}")\n'
    chapter = chapter_of(source, tmp_path, monkeypatch)
    with pytest.raises(ZeroDivisionError) as error:
        run(chapter)
    last = traceback.extract_tb(error.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(chapter.path), 5)


def test_a_chapter_runs_with_one_thread_of_blas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        "from threadpoolctl import threadpool_info\n\n\ndef main() -> None:\n    # %% One\n"
        "    pools = [p for p in threadpool_info() if p['user_api'] == 'blas']\n"
        "    print('threads', {pool['num_threads'] for pool in pools})\n"
    )
    run(chapter_of(source, tmp_path, monkeypatch))
    assert capsys.readouterr().out.splitlines()[-2:] == ["threads {1}", ""]
