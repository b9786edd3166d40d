"""Results do not depend on which kernels are compiled or loaded first.

A function that Numba calls from compiled code is a weak symbol in the object of every caller, and
the linker takes the copy that was loaded first. So all copies must give the same bits, or the
function must be inlined.
"""

import os
import pkgutil
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import printed
from numba.core.registry import CPUDispatcher

import benchmarks.ladders
from tinygpt_np.compiled import cache as compiling
from tinygpt_np.compiled import kernels, simd
from tinygpt_np.compiled.simd import linking

# Prints a digest of a training step's loss and gradients, and of the logits of sequences that are
# read in pieces. With FIRST, functions that kernels call are first called from Python.
SCRIPT = """
import hashlib

import numpy as np

from tinygpt_np.compiled.decoder import CompiledDecoder
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.compiled.kernels import cross_entropy, gelu, layer_norm
from tinygpt_np.model.gpt import GPT, GPTConfig

if FIRST:
    rows, (mean, rstd) = np.ones((3, 96), np.float32), np.ones((2, 3), np.float32)
    cross_entropy.exponentials(rows.copy(), 1)
    cross_entropy.loss_of(rows[0, 0], rows[0, 0], rows[0, 0])
    layer_norm.forward_rows(rows, rows[0], rows[0], 1e-5, rows.copy(), mean, rstd)
    gelu.forward_values(rows[0], rows[1].copy())
model = GPT(GPTConfig(vocab_size=97, block_size=40, n_layer=1, n_head=2, n_embd=96))
rng = np.random.default_rng(1)
for name, param in model.params.items():
    model.params[name] = rng.standard_normal(param.shape, np.float32)
tokens = rng.integers(0, 97, (2, 40))
loss, grads = CompiledEngine(model, 2, 1).loss_and_grads(tokens, tokens[::-1].copy())
decoder = CompiledDecoder(model.config, model.params, 2, 1)
logits = [decoder.read(piece) for piece in (tokens[:, :7], tokens[:, 7:8], tokens[:, 8:])]
for results in ([np.float64(loss), *grads.values()], logits):
    print(hashlib.sha256(b"".join(each.tobytes() for each in results)).hexdigest())
"""


def dispatchers(values: Any) -> Iterator[Any]:
    """Yield all compiled functions among some values, and those in their closures."""
    for value in values:
        if isinstance(value, CPUDispatcher):
            yield value
            cells: Any = value.py_func.__closure__ or ()
            yield from dispatchers(cell.cell_contents for cell in cells)


def test_a_function_that_may_regroup_sums_is_always_inlined_into_its_callers() -> None:
    count = 0
    for package in (kernels, simd, benchmarks.ladders):
        for found in pkgutil.iter_modules(package.__path__):
            module = import_module(f"{package.__name__}.{found.name}")
            for dispatcher in dispatchers(vars(module).values()):
                name = f"{module.__name__}: {dispatcher.py_func.__qualname__}"
                options: dict[str, Any] = dispatcher.targetoptions
                # Without a value of its own, a function takes over the flags of its caller.
                assert "fastmath" in options, name
                assert not options["fastmath"] or options.get("forceinline"), name
                count += 1
    assert count > 100


def run(cache: Path, first: bool = False) -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return printed(SCRIPT.replace("FIRST", str(first)), timeout=600, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Compiles in several processes.
def test_functions_called_or_compiled_before_their_callers_do_not_change_the_bits(
    tmp_path: Path,
) -> None:
    # Linked kernels, which take longest to compile, are copied to the cold cache.
    source = compiling.cache_root() / compiling.stamp(compiling.HERE)
    folder = tmp_path / "tinygpt-np" / "kernels" / source.name
    folder.mkdir(parents=True)
    for compiled in linking.compiled_kernels:
        for path in source.glob(f"*.{compiled.fndesc.qualname}.*.nbc"):
            shutil.copy(path, folder)
    expected = run(tmp_path)
    assert run(tmp_path) == expected
    callees = "cross_entropy.exponentials", "cross_entropy.loss_of", "layer_norm.forward_rows"
    callers = "cross_entropy.loss_and_dlogits", "decoding.output_head"
    # Compiled again, while all others are loaded from the warm cache.
    for missing in ([], [*callees, "elementwise.forward_values"], callers):
        paths = [path for name in missing for path in folder.glob(f"{name}.*.nbc")]
        assert len(paths) >= len(missing)
        for path in paths:
            path.unlink()
        assert run(tmp_path, first=True) == expected
