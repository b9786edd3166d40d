"""Compiled kernels on disk: never stale, never trusted when damaged, never in the way.

Each start is a process of its own, with a copy of cache.py in a small package: a kernel whose
result depends on a callee in another file of kernels/, on constants of ops/ and optim.py, and on
what it encloses.
"""

import os
import shutil
import subprocess
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

CALLEE = """
from small.compiled.cache import kernel

@kernel
def callee(x):
    return 3 * x
"""
CALLER = """
from small.compiled.kernels.callee import callee
from small.compiled.cache import kernel, strict
from small.ops.constants import SHIFT
from small.config import RATE

def adding(function, number):
    @strict
    def added(x):
        return function(x) + number

    return added

add_10, add_20 = adding(callee, 10), adding(callee, 20)

@kernel
def caller(x):
    return callee(x) + SHIFT + 2 * RATE - 1
"""
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
RESULTS, COMPILED = (
    "106.0 16 26",
    "caller.caller callee.callee caller.added caller.added",
)
NOTHING = ""


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small package; kernels of this process and of others are kept in a folder beside it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    house = tmp_path / "small"
    for room in ("compiled/kernels", "ops"):
        (house / room).mkdir(parents=True)
    shutil.copy(cache.__file__, house / "compiled")
    (house / "compiled" / "kernels" / "callee.py").write_text(CALLEE)
    (house / "compiled" / "kernels" / "caller.py").write_text(CALLER)
    (house / "ops" / "constants.py").write_text("SHIFT = 100\n")
    (house / "config.py").write_text("RATE = 0.5\n")
    return house


def process() -> subprocess.Popen[str]:
    return processes.start([sys.executable, "-W", "always", "-c", START])


def outcome(started: subprocess.Popen[str]) -> tuple[str, str, str]:
    """What a start printed: the results, what was compiled, and the warnings."""
    out, err = started.communicate(timeout=processes.LIMIT)
    assert started.returncode == 0, err
    results, compiled = out.splitlines()
    return results, compiled, err


def start() -> tuple[str, str, str]:
    return outcome(process())


def change(path: Path, old: str, new: str) -> None:
    """Edits a file behind the back of the clock: its time and its size stay what they were."""
    before, text = path.stat(), path.read_text()
    assert old in text
    assert len(old) == len(new)
    path.write_text(text.replace(old, new))
    # Python's own cache goes by time and size, too.
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def kept_files(house: Path) -> list[Path]:
    return sorted((house.parent / "cache").rglob("*.nbc"))


def test_a_second_start_compiles_nothing(house: Path) -> None:
    assert start() == (RESULTS, COMPILED, NOTHING)
    assert start() == (RESULTS, NOTHING, NOTHING)


def test_a_changed_callee_in_another_file_changes_the_caller(house: Path) -> None:
    start()
    change(house / "compiled" / "kernels" / "callee.py", "3 * x", "5 * x")
    assert start() == ("110.0 20 30", COMPILED, NOTHING)


def test_a_changed_constant_of_their_twins_changes_the_caller(house: Path) -> None:
    start()
    change(house / "ops" / "constants.py", "100", "900")
    assert start()[0] == "906.0 16 26"
    change(house / "config.py", "0.5", "1.5")
    assert start()[0] == "908.0 16 26"


def test_a_neighbour_changes_a_kernel_that_stands_outside_of_kernels(house: Path) -> None:
    folder = house.parent / "ladder"
    folder.mkdir()
    (folder / "neighbour.py").write_text("RUNG = 1\n")
    before = cache.stamp.__wrapped__(folder)
    assert before == cache.stamp.__wrapped__(folder)
    change(folder / "neighbour.py", "1", "2")
    assert cache.stamp.__wrapped__(folder) != before


def test_a_changed_kernel_changes_those_that_stand_elsewhere_too(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "HERE", house / "compiled")
    before = cache.stamp.__wrapped__(house.parent)
    change(house / "compiled" / "kernels" / "callee.py", "3 * x", "5 * x")
    assert cache.stamp.__wrapped__(house.parent) != before


@pytest.mark.parametrize("setting", ["BOUNDSCHECK", "OPT"])
def test_settings_of_the_compiler_have_kernels_of_their_own(
    setting: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.stamp.__wrapped__(house)
    monkeypatch.setattr(config, setting, 1)
    assert cache.stamp.__wrapped__(house) != before


@pytest.mark.parametrize("module", ["numba", "llvmlite", "numpy"])
def test_versions_of_what_compiles_have_kernels_of_their_own(
    module: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.stamp.__wrapped__(house)
    monkeypatch.setattr(f"{module}.__version__", "0")
    assert cache.stamp.__wrapped__(house) != before


def test_a_function_that_is_compiled_in_two_ways_is_kept_in_two(house: Path) -> None:
    def doubled(x: Any) -> Any:
        return x + x

    for decorated in (strict(doubled), kernel(doubled)):
        decorated(1.0)
    assert len(kept_files(house)) == 2


def test_damaged_files_are_compiled_anew(house: Path) -> None:
    start()
    for number, path in enumerate(kept_files(house)):
        content = path.read_bytes()
        flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
        path.write_bytes([b"", content[:10], content[:-100], flipped][number])
    assert start() == (RESULTS, COMPILED, NOTHING)
    assert start() == (RESULTS, NOTHING, NOTHING)


def test_a_folder_that_cannot_be_made_is_one_warning_and_right_results(house: Path) -> None:
    (house.parent / "cache").write_text("a file where the folder should be")
    results, compiled, warned = start()
    assert (results, compiled) == (RESULTS, COMPILED)
    assert warned.count("RuntimeWarning") == 1
    assert f"cannot be stored in {house.parent / 'cache'}" in warned
    assert "compiled again at every start" in warned


def test_two_processes_at_once_do_not_break_one_another(house: Path) -> None:
    both = [process(), process()]
    for started in both:
        results, _, warned = outcome(started)
        assert (results, warned) == (RESULTS, NOTHING)
    assert start() == (RESULTS, NOTHING, NOTHING)


def test_nothing_but_kernels_is_left_in_the_folder(house: Path) -> None:
    start()
    files = [path for path in (house.parent / "cache").rglob("*") if path.is_file()]
    assert sorted(files) == kept_files(house)
    assert len(files) == 4


@pytest.mark.skipif(os.name != "posix", reason="sets POSIX permissions")
def test_who_may_read_the_users_files_may_read_these(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        cache.write(tmp_path / "kernel.nbc", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "kernel.nbc").stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "kernel.nbc").mkdir()
    with pytest.raises(OSError, match=r"kernel\.nbc"):
        cache.write(tmp_path / "kernel.nbc", b"")
    assert [path.name for path in tmp_path.glob("*.*")] == ["kernel.nbc"]


def test_folders_unused_for_longest_are_removed(house: Path) -> None:
    root = house.parent / "cache" / "tinygpt-np" / "kernels"
    for age in range(1, 12):
        (root / f"old-{age}").mkdir(parents=True)
        os.utime(root / f"old-{age}", (10**9 - age, 10**9 - age))
    start()
    names = {path.name for path in root.iterdir()}
    assert len(names) == cache.FOLDERS_KEPT
    assert {f"old-{age}" for age in range(1, cache.FOLDERS_KEPT)} < names


def test_a_folder_in_use_counts_as_used_now(house: Path) -> None:
    start()
    folder = kept_files(house)[0].parent
    os.utime(folder, (10**9, 10**9))
    start()
    assert folder.stat().st_mtime > 10**9


def test_a_kernel_without_a_source_file_is_compiled_in_memory(house: Path) -> None:
    names: dict[str, Any] = {}
    exec("def double(x): return 2 * x", names)
    assert kernel(names["double"])(4) == 8
    assert kept_files(house) == []


def test_addresses_of_this_process_are_not_kept(house: Path) -> None:
    table = np.ones(10**6)  # Numba takes a large array by its address.

    @kernel
    def entry(i: int) -> Any:
        return table[i]

    with pytest.warns(RuntimeWarning, match=r"test_cache\.entry contains addresses"):
        assert entry(7) == 1
    assert kept_files(house) == []


def test_the_state_of_the_cache_is_its_files(house: Path) -> None:
    folder = cache.cache_root() / cache.stamp(cache.HERE)
    folder.mkdir(parents=True)
    (folder / "one.nbc").write_bytes(b"12345")
    (folder / "two.nbc").write_bytes(b"67")
    assert cache.cache_state() == cache.CacheState(folder, True, 2, 7)


def test_the_state_says_when_the_folder_cannot_be_written(house: Path) -> None:
    (house.parent / "cache").write_text("a file where the folder should be")
    state = cache.cache_state()
    assert (state.writable, state.kernels, state.bytes) == (False, 0, 0)


def test_without_a_setting_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("caches", name))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert cache.cache_root() == Path("caches", "tinygpt-np", "kernels")


def test_only_kernels_are_watched_and_only_for_as_long_as_said() -> None:
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
def test_nan_stays_nan(compiles: Any) -> None:
    @compiles
    def is_nan(x: float) -> Any:
        return x != x

    assert is_nan(np.float32("nan"))


def test_strict_keeps_the_order_of_sums() -> None:
    @strict
    def rounded(x: Any, big: Any) -> Any:
        return (x + big) - big

    assert rounded(np.float32(0.3), np.float32(2**24)) == 0


@pytest.mark.parametrize("compiles", [kernel, strict])
def test_division_by_zero_is_infinite_as_in_numpy(compiles: Any) -> None:
    @compiles
    def inverse(x: Any) -> Any:
        return 1 / x

    assert inverse(0.0) == np.inf


@pytest.mark.parametrize("compiles", [kernel, strict])
def test_kernels_run_without_the_gil(compiles: Any) -> None:
    def same(x: float) -> float:
        return x

    assert compiles(same).targetoptions["nogil"]
