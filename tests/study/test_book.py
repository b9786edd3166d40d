"""The folder of pages: what is in it, what it is called, and that it needs nothing else."""

import json
import re
from pathlib import Path

import pytest

from tinygpt_np.study import book, targets
from tinygpt_np.study.page import Json, page
from tinygpt_np.study.sheet import study
from tinygpt_np.study.source import StudyError


@pytest.fixture(scope="module")
def shown() -> Json:
    return page(study(targets.named("softmax")), [])


@pytest.fixture(scope="module")
def files(shown: Json) -> dict[str, str]:
    return book.files([shown])


def test_there_is_an_index_and_a_page_for_each_target(files: dict[str, str]) -> None:
    pages = {name for name in files if name.endswith(".html")}
    assert pages == {"index.html", "softmax.html"}


def test_a_page_loads_only_what_lies_beside_it(files: dict[str, str]) -> None:
    for name in ("index.html", "softmax.html"):
        loaded = re.findall(r'(?:src|href)="([^"#]+)"', files[name])
        assert {each for each in loaded if each != "data:,"} <= {*files}


def test_nothing_names_an_address_elsewhere(files: dict[str, str]) -> None:
    # A name that SVG has, which is never opened.
    known = "http://www.w3.org/2000/svg"
    for name, text in files.items():
        assert "//" not in re.sub(r"(?m)^\s*//.*$", "", text.replace(known, "")), name


def test_the_written_folder_holds_the_same_files(
    shown: Json, files: dict[str, str], tmp_path: Path
) -> None:
    book.write(tmp_path / "a" / "new", [shown])
    written = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / "a" / "new").iterdir()}
    assert written == files


def test_an_empty_folder_is_written_to(shown: Json, tmp_path: Path) -> None:
    book.write(tmp_path, [shown])
    assert (tmp_path / "softmax.html").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StudyError, match="is not empty; name a folder to be made"):
        book.write(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StudyError, match="file cannot be made: File exists"):
        book.claim(tmp_path / "file")


def test_a_folder_that_goes_while_it_is_written_is_named(
    shown: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(_: Path) -> None:
        """As if it had been made, and taken away since."""

    monkeypatch.setattr(book, "claim", claim)
    with pytest.raises(StudyError, match=r"index\.html cannot be written: No such file"):
        book.write(tmp_path / "gone", [shown])


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("layer_norm", "layer_norm.html"),
        ("mylayer.py:forward,backward", "mylayer.py-forward-backward.html"),
        ("../../etc/a b.py:f,g", "etc-a-b.py-f-g.html"),
        ("größe.py:f,g", "gr-e.py-f-g.html"),
        ("index", "index-2.html"),
        ("::", "page.html"),
    ],
)
def test_a_target_has_a_name_that_suits_a_file(name: str, file: str) -> None:
    assert book.file_names([name]) == {name: file}


def test_no_two_targets_share_a_file() -> None:
    names = ["a:b", "a,b", "A;B", "a-b-2"]
    assert len({file.lower() for file in book.file_names(names).values()}) == 4


def test_the_data_of_a_page_is_read_back_from_it(files: dict[str, str]) -> None:
    found = re.search(r'id="study">(.*?)</script>', files["softmax.html"])
    assert found is not None
    assert json.loads(found.group(1))["name"] == "softmax"


def test_no_text_in_the_data_ends_its_element() -> None:
    text = book.as_script({"says": "</script><b>"}, {})
    assert "<" not in text
    assert json.loads(text)["says"] == "</script><b>"


def test_the_index_shows_the_model_where_its_operations_are(files: dict[str, str]) -> None:
    assert '<a href="softmax.html">' in files["index.html"]
    assert 'class="diagram"' in files["index.html"]


def test_the_style_sheet_has_the_colours_of_the_code(files: dict[str, str]) -> None:
    assert "code .k {" in files["study.css"]


@pytest.mark.parametrize("name", ["study.css", *book.SCRIPTS])
def test_no_file_of_the_pages_is_longer_than_can_be_read(name: str) -> None:
    assert len(book.asset(name).splitlines()) <= 400
