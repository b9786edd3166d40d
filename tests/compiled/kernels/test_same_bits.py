"""Results do not depend on which kernels are compiled or loaded first.

A function that Numba calls from compiled code is a weak symbol in the object of every caller, and
the linker takes the copy that was loaded first. So all copies must give the same bits, or the
function must be inlined.
"""

import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numba.core.registry import CPUDispatcher

import benchmarks.ladders
from tinygpt_np.compiled import cache as compiling
from tinygpt_np.compiled import kernels, simd
from tinygpt_np.compiled.simd import linking

# Prints a digest of a training step's loss and gradients, and one of the logits of sequences that
# are read in pieces. With the argument "first", functions that kernels call are first called from
# Python.
SCRIPT = """
import hashlib
import sys

import numpy as np

from tinygpt_np.training import engine
from tinygpt_np.config import TrainConfig, generator
from tinygpt_np.compiled.decoder import CompiledDecoder
from tinygpt_np.compiled.kernels import cross_entropy, gelu, layer_norm, softmax
from tinygpt_np.model.gpt import GPT

if sys.argv[1:] == ["first"]:
    rows, (mean, rstd) = np.ones((3, 96), np.float32), np.ones((2, 3), np.float32)
    softmax.exponentials(rows, rows.copy(), 1)
    cross_entropy.loss_of(rows[0, 0], rows[0, 0], rows[0, 0])
    layer_norm.forward_rows(rows, rows[0], rows[0], rows.copy(), mean, rstd)
    gelu.forward_values(rows[0], rows[1].copy())
config = TrainConfig(
    block_size=40, n_layer=1, n_head=2, n_embd=96, batch_size=2, dropout=0, threads=1
)
model, rng = GPT(config.gpt(vocab_size=97), backend="numba"), generator(1, "init")
for name, param in model.params.items():
    model.params[name] = rng.standard_normal(param.shape, np.float32)
tokens = rng.integers(0, 97, (2, 40))
steps = engine.make(model, config)
loss, grads = steps.loss_and_grads(tokens, tokens[::-1].copy(), None)
digest = hashlib.sha256(np.float64(loss).tobytes())
for grad in grads.values():
    digest.update(grad.tobytes())
print("step", digest.hexdigest())
decoder, digest = CompiledDecoder(model.config, model.params, 2, 1), hashlib.sha256()
for piece in (tokens[:, :7], tokens[:, 7:8], tokens[:, 8:]):
    digest.update(decoder.read(piece).tobytes())
print("logits", digest.hexdigest())
steps.close()
"""

# Kernels that are compiled again, while all others are loaded from a warm cache.
MISSING = {
    "nothing": [],
    "callees": [
        *("softmax.exponentials", "cross_entropy.loss_of", "layer_norm.forward_rows"),
        "gelu.forward_values",
    ],
    "callers": ["cross_entropy.loss_and_dlogits", "decoding.output_head"],
}


def modules() -> list[ModuleType]:
    """Return all modules with kernels: of the package, and of the ladders."""
    packages = kernels, simd, benchmarks.ladders
    return [
        import_module(f"{package.__name__}.{found.name}")
        for package in packages
        for found in pkgutil.iter_modules(package.__path__)
    ]


def dispatchers(values: Any) -> Iterator[Any]:
    """Yield all compiled functions among some values, and those in their closures."""
    for value in values:
        if isinstance(value, CPUDispatcher):
            yield value
            cells: Any = value.py_func.__closure__ or ()
            yield from dispatchers(cell.cell_contents for cell in cells)


def test_a_function_that_may_regroup_sums_is_always_inlined_into_its_callers() -> None:
    count = 0
    for module in modules():
        for dispatcher in dispatchers(vars(module).values()):
            name = f"{module.__name__}: {dispatcher.py_func.__qualname__}"
            options: dict[str, Any] = dispatcher.targetoptions
            # Without a value of its own, a function takes over the flags of its caller.
            assert "fastmath" in options, name
            assert not options["fastmath"] or options.get("forceinline"), name
            count += 1
    assert count > 100


def run(cache: Path, *arguments: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a cache, and the output of the run that filled it.

    Linked kernels, which take longest to compile, are copied to it beforehand.
    """
    root = tmp_path_factory.mktemp("cache")
    source = compiling.cache_root() / compiling.stamp(compiling.HERE)
    folder = root / "tinygpt-np" / "kernels" / source.name
    folder.mkdir(parents=True)
    for compiled in linking.compiled_kernels:
        for path in source.glob(f"*.{compiled.fndesc.qualname}.*.nbc"):
            shutil.copy(path, folder)
    return root, run(root)


@pytest.mark.slow
def test_a_cold_and_a_warm_cache_give_the_same_bits(cold: tuple[Path, str]) -> None:
    cache, printed = cold
    assert [line.split()[0] for line in printed.splitlines()] == ["step", "logits"]
    assert run(cache) == printed


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["nothing", "callees", "callers"])
def test_functions_called_or_compiled_before_their_callers_do_not_change_the_bits(
    cold: tuple[Path, str], missing: str, tmp_path: Path
) -> None:
    cache, printed = cold
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    removed = 0
    for name in MISSING[missing]:
        for path in tmp_path.rglob(f"{name}.*.nbc"):
            path.unlink()
            removed += 1
    assert removed >= len(MISSING[missing])
    assert run(tmp_path, "first") == printed
