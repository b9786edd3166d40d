"""Cores and memory that this process may use, from the files of control groups."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig, TrainConfig, machine
from tinygpt_np.compiled import threads
from tinygpt_np.compiled.engine import CompiledEngine
from tinygpt_np.training.engine import check_memory

GB = 2**30
MEMINFO = f"MemTotal:       {16 * 2**20} kB\nMemFree:        1 kB\nMemAvailable:   {8 * 2**20} kB\n"


def tree(root: Path, files: dict[str, object]) -> Path:
    """Make a file system with these files; control groups are named from their mount on."""
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / (name if name.startswith("proc/") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", encoding="utf-8")
    return root


def version_2(group: str, limit: object, used: int, cache: int = 0) -> dict[str, object]:
    return {
        f"{group}/memory.max": limit,
        f"{group}/memory.current": used,
        f"{group}/memory.stat": f"anon 5\nfile 9\ninactive_file {cache}\nactive_file {cache}",
    }


def version_1(group: str, limit: object, used: int, cache: int = 0) -> dict[str, object]:
    return {
        f"memory/{group}/memory.limit_in_bytes": limit,
        f"memory/{group}/memory.usage_in_bytes": used,
        f"memory/{group}/memory.stat": f"cache 7\ninactive_file 1\n"
        f"total_inactive_file {cache}\ntotal_active_file {cache}",
    }


def training() -> None:
    """Check the memory for a training that takes about 300 MB."""
    check_memory(GPTConfig(vocab_size=65), TrainConfig(backend="numpy"))


def test_training_that_does_not_fit_into_the_control_group_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 200e6)
    monkeypatch.setattr(machine, "memory_limit", lambda: 400e6)
    expected = (
        r"take about \d+ MB, but only 200 MB of the 400 MB of its control group are available"
    )
    with pytest.raises(ValueError, match=expected):
        training()
    monkeypatch.setattr(machine, "available_memory", lambda: 2e9)
    training()


def test_threads_are_as_many_as_the_quota_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    monkeypatch.setattr(machine, "cpu_quota", lambda root: 2.5)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with CompiledEngine(model, 1) as engine:
        assert engine.threads == 3


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    assert machine.available_memory(root) == 8 * GB
    assert machine.memory_limit(root) == machine.cpu_quota(root) == math.inf
    assert machine.usable_cores(root) == 16


def test_without_the_files_of_linux_the_system_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__, raising=False)
    assert machine.available_memory(tmp_path) == 4_096_000
    monkeypatch.delattr(os, "sysconf")
    assert machine.available_memory(tmp_path) == math.inf


def test_a_limit_of_version_2_holds_without_reclaimable_page_cache(tmp_path: Path) -> None:
    root = tree(
        tmp_path, {"proc/self/cgroup": "0::/job", **version_2("job", 3 * GB, 2 * GB, GB // 2)}
    )
    assert machine.memory_limit(root) == 3 * GB
    assert machine.available_memory(root) == 2 * GB


def test_a_limit_of_version_1_holds_without_reclaimable_page_cache(tmp_path: Path) -> None:
    lines = "5:cpuacct,cpu:/job\n4:memory:/job\n0::/job"
    root = tree(tmp_path, {"proc/self/cgroup": lines, **version_1("job", 3 * GB, 2 * GB, GB // 2)})
    assert machine.memory_limit(root) == 3 * GB
    assert machine.available_memory(root) == 2 * GB


@pytest.mark.parametrize("limits", [(1, 2), (2, 1), ("max", 1), (1, "max")])
def test_the_smallest_limit_on_the_path_holds(
    tmp_path: Path, limits: tuple[object, object]
) -> None:
    outer, inner = (limit if limit == "max" else int(str(limit)) * GB for limit in limits)
    files = {**version_2("outer", outer, 0), **version_2("outer/inner", inner, 0)}
    other = version_2("outer/other", GB // 8, 0)
    root = tree(tmp_path, {"proc/self/cgroup": "0::/outer/inner", **files, **other})
    assert machine.available_memory(root) == machine.memory_limit(root) == GB


def test_what_others_use_of_the_outer_limit_is_not_available(tmp_path: Path) -> None:
    files = {**version_2("a", 4 * GB, 3 * GB), **version_2("a/b", 2 * GB, 0)}
    root = tree(tmp_path, {"proc/self/cgroup": "0::/a/b", **files})
    assert machine.available_memory(root) == GB


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/", version_2(".", GB, 0)),
        ("0::/../../host/slice", version_2(".", GB, 0)),
        ("0::/docker/1234", version_2(".", GB, 0)),
        ("4:memory:/docker/1234", version_1(".", GB, 0)),
    ],
)
def test_in_a_container_its_own_group_is_what_is_mounted(
    tmp_path: Path, line: str, files: dict[str, object]
) -> None:
    assert machine.memory_limit(tree(tmp_path, {"proc/self/cgroup": line, **files})) == GB


@pytest.mark.parametrize("nothing", ["9223372036854771712", "9223372036854710272", "-1"])
def test_the_largest_number_of_version_1_is_no_limit(tmp_path: Path, nothing: str) -> None:
    files = {"proc/self/cgroup": "4:memory:/", **version_1(".", nothing, 2 * GB)}
    root = tree(tmp_path, files)
    assert machine.memory_limit(root) == math.inf
    assert machine.available_memory(root) == 8 * GB


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/job", **version_2("job", GB, 2 * GB)})
    assert machine.available_memory(root) == 0


def test_more_than_the_machine_has_is_no_use(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/job", **version_2("job", 64 * GB, 0)})
    assert machine.available_memory(root) == 8 * GB


@pytest.mark.parametrize(
    ("content", "cores"),
    [
        ("max 100000", 16),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("1000000 50000", 16),
        ("", 16),
        ("100000 0", 16),
    ],
)
def test_a_quota_of_version_2_limits_the_cores_rounded_up(
    tmp_path: Path, content: str, cores: int
) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/job", "job/cpu.max": content})
    assert machine.usable_cores(root) == cores


@pytest.mark.parametrize("folder", ["cpu", "cpuacct,cpu"])
@pytest.mark.parametrize(("quota", "cores"), [(-1, 16), (250_000, 3), (1000, 1)])
def test_a_quota_of_version_1_limits_the_cores_rounded_up(
    tmp_path: Path, folder: str, quota: int, cores: int
) -> None:
    files = {f"{folder}/job/cpu.cfs_quota_us": quota, f"{folder}/job/cpu.cfs_period_us": 100_000}
    root = tree(tmp_path, {"proc/self/cgroup": "5:cpuacct,cpu:/job", **files})
    assert machine.usable_cores(root) == cores


def test_the_smallest_quota_on_the_path_holds(tmp_path: Path) -> None:
    files = {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000", "a/c/cpu.max": "1 1000"}
    root = tree(tmp_path, {"proc/self/cgroup": "0::/a/b", **files})
    assert machine.cpu_quota(root) == 2.0


def test_affinity_below_the_quota_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    root = tree(tmp_path, {"proc/self/cgroup": "0::/job", "job/cpu.max": "400000 100000"})
    assert machine.usable_cores(root) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be taken away here")
def test_cores_taken_away_are_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7})  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert machine.usable_cores(tmp_path) == 3


def test_without_affinity_every_core_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sched_getaffinity", "process_cpu_count"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.usable_cores(tmp_path) == 7


@pytest.mark.parametrize(
    ("features", "bits"),
    [
        ({"avx512f": True, "avx2": True, "sse2": True}, 512),
        ({"avx512f": False, "avx2": True, "sse2": True}, 256),
        ({"neon": True, "sve": False}, 128),
        ({}, 0),
    ],
)
def test_the_width_of_vectors_is_that_of_the_widest(features: dict[str, bool], bits: int) -> None:
    assert machine.vector_bits(features) == bits


def test_the_processor_has_the_name_that_its_maker_gave_it(tmp_path: Path) -> None:
    info = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n"
    assert machine.processor_name(tree(tmp_path, {"proc/cpuinfo": info})) == "Some CPU @ 2 GHz"


def test_without_a_name_the_processor_has_its_architecture(tmp_path: Path) -> None:
    assert machine.processor_name(tmp_path)


# Facts


def test_the_facts_have_cores_threads_and_versions() -> None:
    with threads.limited(1):
        facts = dict(machine.facts())
    assert facts["cores"] == f"{machine.usable_cores()} usable of {os.cpu_count()}"
    assert facts["Numba"].endswith("threads: 1")
    assert facts["NumPy"] == np.__version__


def test_the_facts_have_the_limits_of_a_control_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(machine, "memory_limit", lambda: 2e9)
    monkeypatch.setattr(machine, "available_memory", lambda: 1.5e9)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    cores, memory = machine.describe_cores(), machine.describe_memory()
    assert cores.startswith("1 usable of ")
    assert cores.endswith(", limited to the time of 0.5 by a control group")
    assert memory == "1,500 MB available, limited to 2,000 MB by a control group"


def test_without_limits_the_facts_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cpu_quota", "memory_limit", "available_memory"):
        monkeypatch.setattr(machine, name, lambda *root: math.inf)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert "limited" not in machine.describe_cores()
    assert machine.describe_memory() == "unknown"


def test_a_blas_without_information_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadpoolctl.threadpool_info", list)
    (text,) = machine.blas_libraries()
    assert text.endswith(", threads: unknown")
    assert len(text) > len(", threads: unknown")
