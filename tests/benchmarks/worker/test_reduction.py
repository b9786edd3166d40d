"""The exchange of gradients over ranks, and its times."""

import json
import sys

from helpers.optional import needs, needs_programs

from benchmarks.harness import mpi


@needs_programs(mpi.mpirun() or "mpirun")
def test_two_ranks_time_sums_that_are_right_and_print_a_line_for_each_size() -> None:
    needs("mpi4py")
    # One part for each rank, and several of unequal sizes.
    sizes = [8, 5 * (1 << 20) + 4]
    command = [sys.executable, "-m", "benchmarks.worker.reduction", *map(str, sizes)]
    with mpi.running(mpi.under_mpirun(2, ["--map-by", ":OVERSUBSCRIBE", *command]), 1) as lines:
        rows = [json.loads(line) for line in lines]
    assert [row.pop("size") for row in rows] == sizes
    assert [row.pop("ranks") for row in rows] == [2, 2]
    assert [sorted(row) for row in rows] == [["allreduce", "exchange"]] * 2
    assert all(0 < seconds < 60 for row in rows for seconds in row.values())
