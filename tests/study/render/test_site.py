"""Tests of the folder of pages."""

import json
import re
from pathlib import Path

import pytest
from helpers.architecture import OPERATIONS, PACKAGE
from helpers.study_targets import studied_target

from tinygpt_np import ops
from tinygpt_np.study.render import site
from tinygpt_np.study.render.page import Json, page_data
from tinygpt_np.study.source import targets
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


def test_code_in_a_message_is_marked_and_escaped() -> None:
    assert site.coded("divide `a < b` & c") == "divide <code>a &lt; b</code> &amp; c"


def test_the_data_cannot_close_its_script_element() -> None:
    text = site.as_script({"message": "</script><b>"}, {})
    assert "<" not in text
    assert json.loads(text)["message"] == "</script><b>"


def test_the_pages_are_in_the_reading_order_of_the_operations() -> None:
    assert sorted(targets.OPERATIONS) == sorted(OPERATIONS)
    readme = (PACKAGE / "ops" / "README.md").read_text(encoding="utf-8")
    order = re.findall(
        r"`(\w+)`", readme[readme.index("conventions, then") : readme.index("and finally")]
    )
    assert tuple(order) == targets.OPERATIONS
    for index, name in enumerate(targets.OPERATIONS):
        assert not {*vars(getattr(ops, name))} & {*targets.OPERATIONS[index:]}, name


def test_a_page_links_to_its_neighbours_in_the_order_of_the_index(shown: Json) -> None:
    pages = [{**shown, "name": name, "title": name} for name in ("a", "b", "c")]
    files = site.render_files(pages)
    links = re.findall(r'href="(\w+)\.html"', files["index.html"].partition("All pages")[2])
    assert links == ["a", "b", "c"]
    for name, neighbours in (("a", ["b"]), ("b", ["a", "c"]), ("c", ["b"])):
        found = re.findall(r'rel="(?:prev|next)" href="(\w)\.html"', files[f"{name}.html"])
        assert found == neighbours * 2  # Above and below the code.
