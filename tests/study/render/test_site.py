"""Tests of the folder of pages, and of tinygpt study --html."""

import json
import re
from pathlib import Path

import pytest
from helpers.study_targets import studied_target

from tinygpt_np.study.render import site
from tinygpt_np.study.render.page import Json, page_data
from tinygpt_np.study.source.parse import StudyError


@pytest.fixture(scope="module")
def shown() -> Json:
    return page_data(studied_target("softmax"), [])


@pytest.fixture(scope="module")
def files(shown: Json) -> dict[str, str]:
    return site.render_files([shown])


def test_a_page_loads_only_files_of_the_folder(files: dict[str, str]) -> None:
    for name in ("index.html", "softmax.html"):
        loaded = re.findall(r'(?:src|href)="([^"#]+)"', files[name])
        assert {each for each in loaded if each != "data:,"} <= {*files}


def test_no_file_contains_an_external_address(files: dict[str, str]) -> None:
    # The SVG namespace, which is never requested.
    known = "http://www.w3.org/2000/svg"
    for name, text in files.items():
        assert "//" not in re.sub(r"(?m)^\s*//.*$", "", text.replace(known, "")), name


def test_the_written_files_are_the_rendered_ones(
    shown: Json, files: dict[str, str], tmp_path: Path
) -> None:
    site.write_files(tmp_path / "a" / "new", [shown])
    written = {p.name: p.read_text(encoding="utf-8") for p in (tmp_path / "a" / "new").iterdir()}
    assert written == files


def test_a_file_that_cannot_be_written_is_named(
    shown: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_folder(_: Path) -> None:
        """Do nothing, as if the folder had been deleted since."""

    monkeypatch.setattr(site, "make_folder", make_folder)
    with pytest.raises(StudyError, match=r"index\.html cannot be written: No such file"):
        site.write_files(tmp_path / "gone", [shown])


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
def test_a_target_gets_a_valid_file_name(name: str, file: str) -> None:
    assert site.file_names([name]) == {name: file}


def test_file_names_are_unique() -> None:
    names = ["a:b", "a,b", "A;B", "a-b-2"]
    assert len({file.lower() for file in site.file_names(names).values()}) == 4


def test_the_data_cannot_close_its_script_element() -> None:
    text = site.as_script({"message": "</script><b>"}, {})
    assert "<" not in text
    assert json.loads(text)["message"] == "</script><b>"
