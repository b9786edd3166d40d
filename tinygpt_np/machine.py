"""Facts about the machine: its processor, and the cores and memory that this process may use.

A container or a service manager limits both with control groups (cgroups), which nest: each group
on the path from the process's own group to the root may have a limit, and the smallest holds. Read
are version 2 (one tree of groups) and version 1 (one tree for each controller). All functions take
the folder that stands for /, so that tests can give them files of their own.
"""

import contextlib
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

# Every command imports this module at its start, so this is the start of its process.
STARTED = time.monotonic()
ROOT = Path("/")
# More threads than any machine has cores; starting millions of them takes for ever.
MOST_THREADS = 1024
VECTOR_BITS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}
GROUPS = "sys/fs/cgroup"
# From here on a limit means that there is none. Version 1 writes the largest multiple of a page.
UNLIMITED = 2**62
# Page cache in memory.stat, which the kernel gives up before a group runs out of memory; shared
# memory is not counted there. Version 1 has its numbers with those of the groups inside as total_.
CACHE = ("inactive_file", "active_file")

# Launchers of MPI put the number of processes into the environment, and the rank of this one.
# Open MPI; MPICH, Intel MPI and Slurm's PMI-2; MVAPICH. Slurm's PMIx has only the second.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")


def launched() -> int | None:
    """Return how many processes a launcher of MPI started, or None if none did."""
    found = [os.environ[name] for name in SIZES if name in os.environ]
    if not found and RANKS[-1] in os.environ:
        found = [os.environ.get("SLURM_NTASKS", "1")]
    return int(found[0]) if found else None


def launched_rank() -> int:
    """Return the number of this process among those that a launcher of MPI started, or 0."""
    return next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)


def minutes_running() -> float:
    """Return the minutes since this process was started."""
    return (time.monotonic() - STARTED) / 60


def processor_name(root: Path = ROOT) -> str:
    """Return the manufacturer's name of the processor, or else its architecture."""
    for line in read(root / "proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_bits(features: Mapping[str, bool]) -> int:
    """Return the width of the widest vectors, given LLVM's names of a processor's features."""
    return max((bits for name, bits in VECTOR_BITS.items() if features.get(name)), default=0)


def cores() -> set[int]:
    """Return the numbers of the cores this process may run on, by its affinity."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cores(root: Path = ROOT) -> int:
    """Return the number of cores this process may use: its affinity, limited by the CPU quota."""
    quota, count = cpu_quota(root), len(cores())
    return count if quota >= count else math.ceil(quota)


def cpu_quota(root: Path = ROOT) -> float:
    """Return how many cores' worth of time the control groups allow; infinity without a limit."""
    quotas = [math.inf]
    for folder in groups("cpu", root):
        if (folder / "cpu.max").exists():
            limit, _, period = read(folder / "cpu.max").partition(" ")
        else:
            limit, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        if limit.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(limit) / int(period))
    return min(quotas)


def available_memory(root: Path = ROOT) -> float:
    """Return how many bytes this process can still take; infinity if the system does not say."""
    left = [limit - used for limit, used in memory_limits(root)]
    return max(min([memory_of_machine(root), *left]), 0)


def memory_limit(root: Path = ROOT) -> float:
    """Return the smallest memory limit of the control groups in bytes; infinity without one."""
    return min((limit for limit, _ in memory_limits(root)), default=math.inf)


def memory_of_machine(root: Path = ROOT) -> float:
    """Return the bytes that can be had without swapping, or else all the machine has."""
    for line in read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.removesuffix("kB")) * 1024
    if hasattr(os, "sysconf"):
        with contextlib.suppress(ValueError, OSError):  # Not every system knows the names.
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return math.inf


def memory_limits(root: Path = ROOT) -> Iterator[tuple[int, int]]:
    """Yield each group's limit in bytes and how much of it is used, page cache not counted."""
    for folder in groups("memory", root):
        version = 2 if (folder / "memory.current").exists() else 1
        names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
        limit, used = (read(folder / f"memory.{name}") for name in names)
        if limit.isdecimal() and used.isdecimal() and int(limit) < UNLIMITED:
            prefix = "" if version == 2 else "total_"
            lines = (line.split() for line in read(folder / "memory.stat").splitlines())
            cache = {f"{prefix}{name}" for name in CACHE}
            reclaimable = sum(int(value) for name, value in lines if name in cache)
            yield int(limit), max(int(used) - reclaimable, 0)


def groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's group and of those around it, for one controller."""
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = [root / GROUPS]
        elif controller in controllers.split(","):
            mounts = [root / GROUPS / controller, root / GROUPS / controllers]
        else:
            continue
        # In a container the path may be that of the host; its own group is then what is mounted.
        mount = next((each for each in mounts if each.is_dir()), None)
        if mount is not None:
            inside = mount / os.path.normpath(path).lstrip("/")
            around = (each for each in (inside, *inside.parents) if each.is_relative_to(mount))
            yield from (folder for folder in around if folder.is_dir())


def read(path: Path) -> str:
    """Return what is in a file, stripped, or nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def facts() -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each fact about this machine and its libraries."""
    # Numba takes long to import.
    import llvmlite.binding as llvm  # pyright: ignore[reportMissingTypeStubs]
    import numba

    name, features = cast(Any, llvm).get_host_cpu_name(), cast(Any, llvm).get_host_cpu_features()
    quota, available, most = cpu_quota(), available_memory(), memory_limit()
    time = f", limited to the time of {quota:g} by a control group" if quota < math.inf else ""
    limit = f", limited to {most / 1e6:,.0f} MB by a control group" if most < math.inf else ""
    yield "processor", f"{processor_name()} ({name})"
    yield "vectors", f"{vector_bits(features)} bits"
    yield "cores", f"{usable_cores()} usable of {os.cpu_count()}{time}"
    memory = "unknown" if available == math.inf else f"{available / 1e6:,.0f} MB available"
    yield "memory", memory + limit
    yield from (("BLAS", library) for library in blas_libraries())
    yield "Numba", f"{version('numba')}, threads: {cast(Any, numba).get_num_threads()}"
    yield from ((label, version(label.lower())) for label in ("llvmlite", "NumPy"))
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "tinygpt-np", version("tinygpt-np")


def blas_libraries() -> list[str]:
    """Return the BLAS libraries in use, with their number of threads if it is known."""
    import numpy as np
    import threadpoolctl  # pyright: ignore[reportMissingTypeStubs]

    pools: list[dict[str, Any]] = cast(Any, threadpoolctl).threadpool_info()
    found = [
        f"{pool['internal_api']} {pool['version']}, threads: {pool['num_threads']}"
        for pool in pools
        if pool["user_api"] == "blas"
    ]
    built: Any = np.show_config(mode="dicts")
    return found or [f"{built['Build Dependencies']['blas']['name']}, threads: unknown"]
