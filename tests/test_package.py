"""Importing the package loads little, and its exported names exist."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers.processes import LIMIT, printed

import tinygpt_np as tg

ROOT = Path(__file__).parent.parent


HEAVY = ("matplotlib", "rich", "numba", "pooch", "jinja2", "tinygpt_np.gradcheck")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import tinygpt_np", ("numpy", "tinygpt_np.config", *HEAVY)),
        ("import tinygpt_np as tg; tg.GPT(tg.GPTConfig(vocab_size=5))", HEAVY),
        ("from tinygpt_np import *; GPT", ("numba",)),
    ],
)
def test_nothing_is_loaded_before_it_is_used(code: str, absent: tuple[str, ...]) -> None:
    assert printed(f"import sys; {code}; print({{*{absent}}} & {{*sys.modules}})") == "set()\n"


def test_every_exported_name_exists() -> None:
    assert all(getattr(tg, name) is not None for name in dir(tg))
    assert tg.__version__ == version("tinygpt-np")
    assert {*tg.__all__} == {*dir(tg)} - {"kernels", "__version__"}
    with pytest.raises(AttributeError, match="'tinygpt_np' has no attribute 'nosuch'"):
        tg.nosuch  # type: ignore[attr-defined] # noqa: B018


def test_every_dependency_has_a_lower_bound_that_ci_can_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = subprocess.run(
        [sys.executable, ".ci/lowest.py", *project["optional-dependencies"]],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT,
    )  # fmt: skip
    lines = out.stdout.splitlines()
    assert {"numba", "matplotlib", "tiktoken", "transformers"} <= {n.split("==")[0] for n in lines}
    assert all(re.fullmatch(r"[\w.-]+==\d[\d.]*", line) for line in lines)
