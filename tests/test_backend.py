"""Choosing the operations by name."""

import importlib
import subprocess
import sys

import pytest
from helpers.processes import LIMIT

from tinygpt_np import backend


@pytest.mark.parametrize(("name", "module"), backend.BACKENDS.items())
def test_a_backend_loads_its_module(name: str, module: str) -> None:
    assert backend.load(name) is importlib.import_module(module)


def test_numpy_is_ops_and_numba_is_kernels() -> None:
    assert backend.BACKENDS == {"numpy": "tinygpt_np.ops", "numba": "tinygpt_np.compiled.kernels"}


def test_numpy_does_not_import_a_compiler() -> None:
    code = (
        "import sys; from tinygpt_np import backend\n"
        "backend.load('numpy')\n"
        "print('numba' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("name", sorted(backend.BACKENDS))
def test_an_unknown_backend_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=rf"one of .*{name}.*, not 'nunpy'"):
        backend.load("nunpy")
