"""Fixtures: the pages of a study on disk."""

from pathlib import Path

import pytest
from helpers.study_targets import BACKWARD, FORWARD, edited, sheet, studied_target

from tinygpt_np.study.render import site
from tinygpt_np.study.render.page import Json, page_data
from tinygpt_np.study.render.questions import questions


@pytest.fixture(scope="session")
def pages() -> list[Json]:
    names = ("embedding", "softmax", "attention")
    operations = [
        page_data(studied_target(name), questions(studied_target(name).truth)) for name in names
    ]
    lacking = sheet(FORWARD + edited(BACKWARD, ("    dz += db * a\n", "")))
    return [*operations, page_data(studied_target("block"), []), page_data(lacking, [])]


@pytest.fixture(scope="session")
def folder(pages: list[Json], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "pages"
    site.write_files(path, pages)
    return path
