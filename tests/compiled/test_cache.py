"""Compiled kernels on disk: never stale, and ignored when damaged.

Each start is a process of its own, with a copy of cache.py in a small package: a kernel whose
result depends on a callee in another file of kernels/, on constants, and on its closure.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from helpers import processes
from numba.core import config

from tinygpt_np.compiled import cache
from tinygpt_np.compiled.cache import kernel, strict

pytestmark = pytest.mark.slow  # Compiles in many processes.

FILES = {
    "compiled/kernels/callee.py": """
from small.compiled.cache import kernel

@kernel
def callee(x):
    return 3 * x
""",
    "compiled/kernels/caller.py": """
from small.compiled.kernels.callee import callee
from small.compiled.cache import kernel, strict
from small.ops.constants import SHIFT

def adding(function, number):
    @strict
    def added(x):
        return function(x) + number

    return added

add_10, add_20 = adding(callee, 10), adding(callee, 20)

@kernel
def caller(x):
    return callee(x) + SHIFT
""",
    "ops/constants.py": "SHIFT = 100",
    "config.py": "",
    "ladder/neighbour.py": "",
}
# Prints the results, then what was compiled for them.
START = """
import sys
from small.compiled import cache
compiled = []
with cache.watch(compiled.append):
    from small.compiled.kernels.caller import add_10, add_20, caller
    print(caller(2), add_10(2), add_20(2))
print(*compiled)
"""
RESULTS = "106 16 26"
COMPILED, NOTHING = "caller.caller callee.callee caller.added caller.added", ""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the small package, and a cache folder next to it for all processes."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "small"
    for name, text in FILES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    shutil.copy(cache.__file__, package / "compiled")
    return package


def start() -> tuple[str, str, str]:
    """Return the results of a start, what it compiled, and its warnings."""
    started = processes.start([sys.executable, "-W", "always", "-c", START])
    out, err = started.communicate(timeout=processes.LIMIT)
    assert started.returncode == 0, err
    results, compiled = out.splitlines()
    return results, compiled, err


def stored_files(package: Path) -> list[Path]:
    return sorted((package.parent / "cache").rglob("*.nbc"))


def test_a_second_start_compiles_nothing_and_folders_unused_for_longest_are_removed(
    package: Path,
) -> None:
    root = package.parent / "cache" / "tinygpt-np" / "kernels"
    for age in range(1, 12):
        (root / f"old-{age}").mkdir(parents=True)
        os.utime(root / f"old-{age}", (10**9 - age, 10**9 - age))
    assert start() == (RESULTS, COMPILED, NOTHING)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sorted(files) == stored_files(package)
    assert len(files) == 4
    names = {path.name for path in root.iterdir()}
    folder = files[0].parent
    assert names == {folder.name, *(f"old-{age}" for age in range(1, cache.FOLDERS_KEPT))}
    os.utime(folder, (10**9, 10**9))
    assert start() == (RESULTS, NOTHING, NOTHING)
    assert folder.stat().st_mtime > 10**9


@pytest.mark.parametrize(
    "changed",
    [
        *("compiled/kernels/callee.py", "ops/constants.py", "config.py", "ladder/neighbour.py"),
        *("numba.core.config.BOUNDSCHECK", "numba.core.config.OPT"),
        *("numba.__version__", "llvmlite.__version__", "numpy.__version__"),
    ],
)
def test_sources_settings_and_versions_of_the_compilers_change_the_stamp(
    changed: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "HERE", package / "compiled")
    before = cache.stamp.__wrapped__(package / "ladder")
    assert before == cache.stamp.__wrapped__(package / "ladder")
    if changed.endswith(".py"):
        (package / changed).write_text("RUNG = 1\n")
    else:
        monkeypatch.setattr(changed, "1")
    assert cache.stamp.__wrapped__(package / "ladder") != before


def test_a_function_compiled_in_two_ways_has_two_files(package: Path) -> None:
    def doubled(x: Any) -> Any:
        return x + x

    for decorated in (strict(doubled), kernel(doubled)):
        decorated(1.0)
    assert len(stored_files(package)) == 2


def test_damaged_files_are_compiled_again(package: Path) -> None:
    start()
    for number, path in enumerate(stored_files(package)):
        content = path.read_bytes()
        flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
        path.write_bytes([b"", content[:10], content[:-100], flipped][number])
    assert start() == (RESULTS, COMPILED, NOTHING)
    assert start() == (RESULTS, NOTHING, NOTHING)


def test_a_folder_that_cannot_be_made_is_one_warning_and_right_results(package: Path) -> None:
    (package.parent / "cache").write_text("a file where the folder should be")
    results, compiled, warned = start()
    assert (results, compiled) == (RESULTS, COMPILED)
    assert warned.count("RuntimeWarning") == 1
    assert f"cannot be stored in {package.parent / 'cache'}" in warned
    assert "compiled again at every start" in warned


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "kernel.nbc").mkdir()
    with pytest.raises(OSError, match=r"kernel\.nbc"):
        cache.write(tmp_path / "kernel.nbc", b"")
    assert [path.name for path in tmp_path.glob("*.*")] == ["kernel.nbc"]


def test_a_kernel_without_a_source_file_is_compiled_in_memory(package: Path) -> None:
    names: dict[str, Any] = {}
    exec("def double(x): return 2 * x", names)
    assert kernel(names["double"])(4) == 8
    assert stored_files(package) == []


def test_addresses_of_this_process_are_not_stored(package: Path) -> None:
    table = np.ones(10**6)  # Numba takes a large array by its address.

    @kernel
    def entry(i: int) -> Any:
        return table[i]

    with pytest.warns(RuntimeWarning, match=r"test_cache\.entry contains addresses"):
        assert entry(7) == 1
    assert stored_files(package) == []


def test_without_a_setting_the_users_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("caches", name))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert cache.cache_root() == Path("caches", "tinygpt-np", "kernels")


def test_only_kernels_are_watched_and_only_inside_the_with_statement() -> None:
    def same(x: float) -> float:
        return x

    njit: Any = numba.njit
    seen: list[str] = []
    with cache.watch(seen.append):
        njit(same)(1.0)
        kernel(same)(1.0)
    strict(same)(1)
    assert seen == ["test_cache.same"]


@pytest.mark.parametrize("compiles", [kernel, strict])
def test_kernels_keep_nan_and_infinity_and_run_without_the_gil(compiles: Any) -> None:
    @compiles
    def is_nan_and_inverse(x: Any) -> Any:
        return x != x, 1 / x

    assert is_nan_and_inverse(np.float32("nan"))[0]
    assert is_nan_and_inverse(np.float32(0)) == (False, np.inf)  # As in NumPy.
    assert is_nan_and_inverse.targetoptions["nogil"]


def test_strict_keeps_the_order_of_sums() -> None:
    @strict
    def rounded(x: Any, big: Any) -> Any:
        return (x + big) - big

    assert rounded(np.float32(0.3), np.float32(2**24)) == 0
