"""What importing the package brings along, and what it offers."""

import subprocess
import sys

import tinygpt_np as tg


def test_importing_it_brings_neither_pictures_nor_terminal_nor_compiler() -> None:
    heavy = ("matplotlib", "rich", "numba", "tyro", "pooch")
    code = f"import sys, tinygpt_np; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_it_prints_nothing() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "import tinygpt_np"], capture_output=True, text=True, check=True
    )
    assert out.stdout + out.stderr == ""


def test_what_it_offers_is_there() -> None:
    assert all(hasattr(tg, name) for name in tg.__all__)
