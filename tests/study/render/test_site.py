"""Tests of the folder of pages."""

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


def test_the_written_files_load_only_each_other(shown: Json, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "new"
    site.write_files(folder, [shown])
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert files == site.render_files([shown])
    for name in ("index.html", "softmax.html"):
        loaded = re.findall(r'(?:src|href)="([^"#]+)"', files[name])
        assert {each for each in loaded if each != "data:,"} <= {*files}
    for name, text in files.items():
        # The SVG namespace is never requested.
        text = re.sub(r"(?m)^\s*//.*$", "", text.replace("http://www.w3.org/2000/svg", ""))
        assert "//" not in text, name


def test_a_file_that_cannot_be_written_is_named(
    shown: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "make_folder", print)  # As if the folder had been deleted since.
    with pytest.raises(StudyError, match=r"index\.html cannot be written: No such file"):
        site.write_files(tmp_path / "gone", [shown])


def test_a_target_gets_a_valid_file_name_of_its_own() -> None:
    files = {
        "layer_norm": "layer_norm.html",
        "../../etc/my layer.py:forward,backward": "etc-my-layer.py-forward-backward.html",
        "größe.py:f,g": "gr-e.py-f-g.html",
        "index": "index-2.html",
        "::": "page.html",
        "a:b": "a-b.html",
        "A;B": "A-B-2.html",
        "a-b-2": "a-b-2-2.html",
    }
    assert site.file_names([*files]) == files


def test_the_data_cannot_close_its_script_element() -> None:
    text = site.as_script({"message": "</script><b>"}, {})
    assert "<" not in text
    assert json.loads(text)["message"] == "</script><b>"
