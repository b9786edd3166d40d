"""The exchange of gradients over ranks, and its times."""

import json
import sys

import numpy as np
import pytest
from helpers.optional import needs, needs_programs
from helpers.thread_ranks import on_ranks

from benchmarks.harness import mpi
from benchmarks.worker import reduction
from tinygpt_np.training.ranks.group import Group


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_exchange_leaves_the_sums_on_all_ranks(ranks: int) -> None:
    def exchanged(group: Group) -> np.ndarray:
        whole = reduction.Whole(group, 42 * 4 * reduction.COLUMNS)
        assert {bucket.owner for bucket in whole.shards.buckets} == {*range(ranks)}
        whole.flat[...] = np.arange(whole.flat.size) + 10 * group.rank
        whole()
        return whole.flat

    for found in on_ranks(ranks, exchanged):
        expected = ranks * np.arange(42 * reduction.COLUMNS) + 10 * sum(range(ranks))
        np.testing.assert_array_equal(found, expected)


@needs_programs(mpi.mpirun() or "mpirun")
def test_two_ranks_print_a_line_for_each_size() -> None:
    needs("mpi4py")
    sizes = [4096, 5 << 20]
    command = [sys.executable, "-m", "benchmarks.worker.reduction", *map(str, sizes)]
    with mpi.running(mpi.under_mpirun(2, ["--map-by", ":OVERSUBSCRIBE", *command]), 1) as lines:
        rows = [json.loads(line) for line in lines]
    assert [row.pop("size") for row in rows] == sizes
    assert [row.pop("ranks") for row in rows] == [2, 2]
    assert [sorted(row) for row in rows] == [["allreduce", "exchange"]] * 2
    assert all(0 < seconds < 60 for row in rows for seconds in row.values())
