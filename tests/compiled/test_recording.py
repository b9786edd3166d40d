"""Recorded calls of kernels do what calls from Python do, in their order, and can be stopped."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from tinygpt_np.compiled import threads
from tinygpt_np.compiled.cache import strict
from tinygpt_np.compiled.recording import Recorder, Recording, Recordings
from tinygpt_np.compiled.simd.barrier import wait_for_all
from tinygpt_np.compiled.simd.memory import Matrix
from tinygpt_np.compiled.threads import (
    STOPPED,
    ParallelRegion,
    StoppedError,
    StuckError,
    ThreadTeam,
)

RNG = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


@strict
def combine(  # One argument of each kind that kernels have, and of each rank and type of arrays.
    flag: Any, count: Any, wide: Any, narrow: Any, pair: Any, m: Any, a: Any, b: Any, c: Any,
    ids: Any, out: Any,
) -> None:  # fmt: skip
    rows, columns, depth = c.shape
    for i in range(rows):
        for j in range(columns):
            for k in range(depth):
                out[i, j, k] = (
                    (1 if flag else -1) * (count + wide * narrow + pair[0] - pair[1][1] * m.stride)
                    + a[k] * b[i, j] * c[i, j, k] * ids[j] + m.address
                )  # fmt: skip


@strict
def add_one(x: Any) -> None:
    for i in range(x.size):
        x[i] += 1


@strict
def double(x: Any) -> None:
    for i in range(x.size):
        x[i] *= 2


def recording_of(*calls: tuple[Any, ...]) -> Recording:
    recorder = Recorder()
    for kernel, *args in calls:
        recorder.call(kernel, *args)
    return Recording(recorder)


@pytest.mark.parametrize("flag", [True, False])
def test_a_recorded_call_gets_the_arguments_of_all_kinds(flag: bool) -> None:
    scalars = flag, -(2**40), -0.37, np.float32(1.7), (2, (3.5, -4)), Matrix(17, -5)
    arrays = normal(5), normal(2, 3), normal(2, 3, 5), RNG.integers(-9, 9, 3)
    expected, out = np.zeros((2, 3, 5)), np.zeros((2, 3, 5))
    recording = recording_of((combine, *scalars, *arrays, out))
    assert not out.any()
    for _ in range(2):
        combine(*scalars, *arrays, expected)
        recording.play(ParallelRegion(1))
        np.testing.assert_array_equal(out, expected)
        arrays[2][...] = normal(2, 3, 5)  # The next call sees what is in the arrays then.
        arrays[3][...] = RNG.integers(-9, 9, 3)


def test_arrays_that_are_not_contiguous_are_recorded_with_their_strides() -> None:
    x = np.zeros((4, 6), np.float32)
    recording_of((add_one, x[1, ::2]), (add_one, x[:, 5])).play(ParallelRegion(1))
    expected = np.zeros((4, 6), np.float32)
    expected[1, ::2] += 1
    expected[:, 5] += 1
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("notes", [True, False])
def test_calls_and_marks_come_in_their_order(notes: bool) -> None:
    x, seen = np.ones(3, np.float32), list[tuple[str, float]]()
    recorder = Recorder()
    recorder.call(add_one, x)
    recorder.mark("a")
    recorder.split(3, 1, lambda part: recorder.call(double, x[part]), 1e9)
    recorder.mark("b")
    recorder.call(add_one, x)

    def note(name: str) -> None:
        seen.append((name, float(x[0])))

    Recording(recorder).play(ParallelRegion(1), note if notes else None)
    assert x.tolist() == [5, 5, 5]
    assert seen == ([("a", 2), ("b", 4)] if notes else [])


def test_an_empty_recording_plays_and_is_shared() -> None:
    recording_of().play(ParallelRegion(1), print)
    recording_of().share(ThreadTeam(2), 1e9)


@strict
def note_thread(x: Any, waiting: Any) -> None:
    """Add one to x, and wait until as many threads as numbers in `waiting` have called this."""
    x[0] += 1
    wait_for_all(waiting.ctypes.data, waiting.size)


@pytest.mark.parametrize(("threads", "meets"), [(1, 1), (2, 2), (3, 3), (3, 1)])
def test_threads_share_the_calls_and_make_each_once(threads: int, meets: int) -> None:
    arrays, waiting = [np.zeros(1, np.float32) for _ in range(12)], np.zeros(meets, np.int64)
    recording = recording_of(*((note_thread, x, waiting) for x in arrays))
    team = ThreadTeam(threads)
    for times in (1, 2):
        recording.share(team, 1e9)
        assert [float(x[0]) for x in arrays] == [times] * 12
    team.close()


def test_calls_that_do_not_take_long_are_made_by_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, run = list[int](), ThreadTeam.run

    def noted(self: ThreadTeam, job: Any, region: ParallelRegion) -> None:
        sizes.append(region.size)
        run(self, job, region)

    monkeypatch.setattr(ThreadTeam, "run", noted)
    monkeypatch.setattr(threads, "SPLIT_FROM", 1000)
    x, team = normal(3), ThreadTeam(3)
    for calls in (2, 5):
        for flops in (999, 1000):
            recording_of(*[(add_one, x)] * calls).share(team, flops)
    assert sizes == [1, 2, 1, 3]
    team.close()


def test_a_recording_is_used_again_for_the_same_kind_and_arrays_only() -> None:
    recordings, made = Recordings(5), list[int]()
    x, y = normal(3), normal(3)

    def record(recorder: Recorder) -> int:
        made.append(len(made))
        return made[-1]

    found = [
        recordings.get(record, kind, *sources).results
        for kind, *sources in [((1,), x), ((1,), x), ((2,), x), ((1,), y), ((1,), x, y), ((1,), x)]
    ]
    assert found == [0, 0, 1, 2, 3, 0]
    for _ in range(12):
        recordings.get(record, (1,), normal(3))
        assert len(recordings.found) <= 5


@pytest.mark.parametrize(("stopped", "kind"), [(True, StoppedError), (False, StuckError)])
def test_a_region_that_is_stopped_in_between_makes_no_more_calls(
    stopped: bool, kind: type[Exception]
) -> None:
    x, region = np.ones(3, np.float32), ParallelRegion(2)
    recorder = Recorder()
    recorder.call(add_one, x)
    recorder.call(strict(stop_counter), region.counter)
    recorder.call(double, x)
    region.stopped = stopped
    with pytest.raises(kind):
        Recording(recorder).play(region)
    assert x.tolist() == [2, 2, 2]


def stop_counter(counter: Any) -> None:
    counter[0] = STOPPED


def test_the_arrays_live_as_long_as_the_recording() -> None:
    x = normal(7)
    alive, recording = weakref.ref(x), recording_of((add_one, x))
    del x
    gc.collect()
    assert alive() is not None
    recording.play(ParallelRegion(1))
    del recording
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("value", [None, "text", np.uint64(3), slice(3)])
def test_an_argument_of_another_kind_is_refused(value: Any) -> None:
    message = f"an argument of {type(value).__name__} cannot be recorded"
    with pytest.raises(TypeError, match=message):
        Recorder().call(add_one, value)


@strict
def refuse_large(x: Any) -> None:
    if x[0] > 2:
        raise ValueError("too large")


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_an_error_in_a_recorded_kernel_is_raised_and_ends_the_calls(threads: int) -> None:
    x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
    calls = [(add_one, x), (refuse_large, x), *[(add_one, y)] * 100]
    recording = recording_of(*calls)

    def run() -> None:
        if threads == 0:
            recording.play(ParallelRegion(1))
        else:
            recording.share(ThreadTeam(threads), 1e9)

    run()
    assert x[0] == 2
    assert y[0] == 100
    x[0] = 5  # The call that fails may be made first.
    with pytest.raises(ValueError, match="too large"):
        run()
    if threads < 2:
        assert y[0] == 100
