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


def test_importing_the_package_loads_no_other_module() -> None:
    code = "import sys, tinygpt_np; print(*(m for m in sys.modules if m.startswith('tinygpt_np.')))"
    out = subprocess.run(
        [sys.executable, "-c", code + "; print('numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert out.stdout == "\nFalse\n"


def test_a_model_needs_no_plotting_terminal_or_compiler_library() -> None:
    heavy = ("matplotlib", "rich", "numba", "pooch", "jinja2", "tinygpt_np.gradcheck")
    code = (
        f"import sys, tinygpt_np; tinygpt_np.GPT; print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_importing_the_package_prints_nothing() -> None:
    assert printed("import tinygpt_np") == ""


def test_every_exported_name_exists() -> None:
    assert all(getattr(tg, name) is not None for name in dir(tg))
    assert {*tg.__all__} == {*dir(tg)} - {"kernels", "__version__"}


def test_dir_shows_the_public_names_only() -> None:
    assert {"importlib", "Any", "TYPE_CHECKING", "MODULES"}.isdisjoint(dir(tg))
    assert all(name[0] != "_" for name in dir(tg) if name != "__version__")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tinygpt_np' has no attribute 'nosuch'"):
        tg.nosuch  # type: ignore[attr-defined] # noqa: B018


def test_the_version_is_that_of_the_distribution() -> None:
    assert tg.__version__ == version("tinygpt-np")


def test_importing_all_names_does_not_load_numba() -> None:
    code = "import sys; from tinygpt_np import *; print('numba' in sys.modules, GPT.__name__)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout == "False GPT\n"


def test_every_dependency_has_a_lower_bound_that_ci_can_install() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = subprocess.run(
        [sys.executable, ".ci/lowest.py", *project["optional-dependencies"]],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT,
    )  # fmt: skip
    lines = out.stdout.splitlines()
    assert {"numba", "matplotlib", "tiktoken", "transformers"} <= {n.split("==")[0] for n in lines}
    assert all(re.fullmatch(r"[\w.-]+==\d[\d.]*", line) for line in lines)
