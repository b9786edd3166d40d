"""Files to start from: all kernels in them pass the gate as they are written."""

from pathlib import Path

import pytest
from helpers.gate import pass_gate
from helpers.optional import needs_programs

from benchmarks import cases
from benchmarks.mine import template
from benchmarks.mine.loading import load
from benchmarks.mine.source import find

LANGUAGES = [
    pytest.param(name, marks=[needs_programs("cc")] * (name == "c")) for name in template.SUFFIXES
]


@pytest.mark.slow
@pytest.mark.parametrize("operation", cases.OPERATIONS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_template_passes_the_gate_in_all_directions(
    language: str, operation: str, tmp_path: Path
) -> None:
    _, arguments = template.write(operation, language, tmp_path)
    first, option, *texts = arguments.split()
    assert (first, option) == (operation, "--mine")
    kernels = [find(text, [operation]) for text in texts]
    assert [kernel.direction for kernel in kernels] == [*cases.directions(operation)]
    for kernel in kernels:
        pass_gate(load(kernel), operation, kernel.direction)


def test_a_template_says_what_its_kernels_take(tmp_path: Path) -> None:
    path, _ = template.write("cross_entropy", "numba", tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name == "my_cross_entropy.py"
    assert "logits (N, V), targets (N) of int64 -> logits (N, V), losses (N)" in text
    assert "cpu: N 192, V 65" in text


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path, _ = template.write("gelu", "numpy", tmp_path)
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        template.write("gelu", "numba", tmp_path)
    assert path.read_text() == "mine"
