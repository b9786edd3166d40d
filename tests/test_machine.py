"""Cores and memory that this process may use, from the files of control groups."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig, TrainConfig, machine
from tinygpt_np.compiled import threads
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.training.engine import check_memory

GB = 2**30
MEMINFO = f"MemTotal:       {16 * 2**20} kB\nMemFree:        1 kB\nMemAvailable:   {8 * 2**20} kB\n"
Files = dict[str, object]


def tree(root: Path, group: str, files: Files) -> Path:
    """Make a file system for a process in a group; a group's files are named from the mount on."""
    proc = {"proc/meminfo": MEMINFO, "proc/self/cgroup": group}
    for name, content in {**proc, **files}.items():
        path = root / (name if name.startswith("proc/") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


def version_2(group: str, limit: object, used: int, cache: int = 0) -> Files:
    return {
        f"{group}/memory.max": limit,
        f"{group}/memory.current": used,
        f"{group}/memory.stat": f"anon 5\nfile 9\ninactive_file {cache}\nactive_file {cache}",
    }


def version_1(group: str, limit: object, used: int, cache: int = 0) -> Files:
    stat = f"inactive_file 1\ntotal_inactive_file {cache}\ntotal_active_file {cache}"
    return {
        f"memory/{group}/memory.limit_in_bytes": limit,
        f"memory/{group}/memory.usage_in_bytes": used,
        f"memory/{group}/memory.stat": f"cache 7\n{stat}",
    }


OUTER_3_USED = version_2("a", 4 * GB, 3 * GB)
MEMORY: dict[str, tuple[str, Files, float, int]] = {
    # The process's group, its files, the memory limit, and what is available of 8 GB.
    "no control groups": ("", {}, math.inf, 8 * GB),
    "page cache is reclaimable": (
        "0::/job", version_2("job", 3 * GB, 2 * GB, GB // 2), 3 * GB, 2 * GB,
    ),
    "page cache in version 1": (
        "5:cpuacct,cpu:/job\n4:memory:/job\n0::/job",
        version_1("job", 3 * GB, 2 * GB, GB // 2), 3 * GB, 2 * GB,
    ),
    "the outer limit is smaller": (
        "0::/a/b", version_2("a", GB, 0) | version_2("a/b", 2 * GB, 0), GB, GB,
    ),
    "the inner limit is smaller": (
        "0::/a/b",
        version_2("a", "max", 0) | version_2("a/b", GB, 0) | version_2("a/c", GB // 8, 0), GB, GB,
    ),
    "others use the outer group": (
        "0::/a/b", OUTER_3_USED | version_2("a/b", 2 * GB, 0), 2 * GB, GB,
    ),
    "in the root group": ("0::/", version_2(".", GB, 0), GB, GB),
    "a path of the host": ("0::/../../host/slice", version_2(".", GB, 0), GB, GB),
    "a container": ("0::/docker/1234", version_2(".", GB, 0), GB, GB),
    "a container in version 1": ("4:memory:/docker/12", version_1(".", GB, 0), GB, GB),
    "over its limit": ("0::/job", version_2("job", GB, 2 * GB), GB, 0),
    "more than the machine has": ("0::/job", version_2("job", 64 * GB, 0), 64 * GB, 8 * GB),
    **{
        f"no limit, {nothing}": ("4:memory:/", version_1(".", nothing, 2 * GB), math.inf, 8 * GB)
        for nothing in ("9223372036854771712", "9223372036854710272", "-1")
    },
}  # fmt: skip


@pytest.mark.parametrize(("group", "files", "limit", "available"), MEMORY.values(), ids=MEMORY)
def test_memory_is_what_the_machine_and_every_group_around_the_process_leave(
    tmp_path: Path, group: str, files: Files, limit: float, available: int
) -> None:
    root = tree(tmp_path, group, files)
    assert (machine.memory_limit(root), machine.available_memory(root)) == (limit, available)


def test_without_the_files_of_linux_the_system_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert machine.available_memory(tmp_path) == 4_096_000
    monkeypatch.delattr(os, "sysconf")
    assert machine.available_memory(tmp_path) == math.inf


def test_training_that_does_not_fit_into_the_control_group_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = GPTConfig(vocab_size=65), TrainConfig(backend="numpy")  # About 300 MB.
    monkeypatch.setattr(machine, "available_memory", lambda: 200e6)
    monkeypatch.setattr(machine, "memory_limit", lambda: 400e6)
    expected = r"about \d+ MB, but only 200 MB of the 400 MB of its control group are available"
    with pytest.raises(ValueError, match=expected):
        check_memory(*training)
    monkeypatch.setattr(machine, "available_memory", lambda: 2e9)
    check_memory(*training)


def version_1_quota(folder: str, quota: int) -> Files:
    return {f"{folder}/job/cpu.cfs_quota_us": quota, f"{folder}/job/cpu.cfs_period_us": 100_000}


QUOTAS: list[tuple[str, Files, int]] = [
    ("", {}, 16),
    ("0::/job", {"job/cpu.max": "max 100000"}, 16),
    ("0::/job", {"job/cpu.max": "50000 100000"}, 1),
    ("0::/job", {"job/cpu.max": "150000 100000"}, 2),
    ("0::/job", {"job/cpu.max": "2000000 100000"}, 16),
    ("0::/job", {"job/cpu.max": ""}, 16),
    ("0::/job", {"job/cpu.max": "100000 0"}, 16),
    ("0::/a/b", {"a/cpu.max": "2 1", "a/b/cpu.max": "3 1", "a/c/cpu.max": "1 1000"}, 2),
    ("0::/a/b", {"a/cpu.max": "3 1", "a/b/cpu.max": "2 1"}, 2),
    ("5:cpuacct,cpu:/job", version_1_quota("cpu", -1), 16),
    ("5:cpuacct,cpu:/job", version_1_quota("cpu", 250_000), 3),
    ("5:cpuacct,cpu:/job", version_1_quota("cpuacct,cpu", 1000), 1),
]


@pytest.mark.parametrize(("group", "files", "cores"), QUOTAS)
def test_the_smallest_quota_limits_the_cores_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, files: Files, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    root = tree(tmp_path, group, files)
    assert machine.usable_cores(root) == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert machine.usable_cores(root) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert machine.usable_cores(root) == cores


def test_threads_are_as_many_as_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda root: 0.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with CompiledEngine(GPT(GPTConfig(vocab_size=5, n_embd=4)), 1) as engine:
        assert engine.threads == 1


# Facts


def test_the_processor_has_its_makers_name_and_the_width_of_its_widest_vectors(
    tmp_path: Path,
) -> None:
    assert machine.processor_name(tmp_path)
    info = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n"
    root = tree(tmp_path, "", {"proc/cpuinfo": info})
    assert machine.processor_name(root) == "Some CPU @ 2 GHz"
    assert machine.vector_bits({"avx512f": False, "avx2": True, "sse2": True}) == 256
    assert machine.vector_bits({}) == 0


def test_the_facts_have_cores_memory_threads_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"cpu_quota": 0.5, "memory_limit": 2e9, "available_memory": 1.5e9, "usable_cores": 1}
    for name, value in limits.items():
        monkeypatch.setattr(machine, name, lambda value=value: value)
    monkeypatch.setattr("threadpoolctl.threadpool_info", list)
    with threads.limited(1):
        facts = dict(machine.facts())
    cores = f"1 usable of {os.cpu_count()}, limited to the time of 0.5 by a control group"
    assert facts["cores"] == cores
    assert facts["memory"] == "1,500 MB available, limited to 2,000 MB by a control group"
    assert facts["Numba"].endswith("threads: 1")
    assert facts["NumPy"] == np.__version__
    assert len(facts["BLAS"].removesuffix(", threads: unknown")) > 1


def test_a_process_runs_since_the_module_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: machine.STARTED + 90))
    assert machine.minutes_running() == pytest.approx(1.5)
