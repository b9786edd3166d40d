import gc

import numpy as np

from tinygpt_np.compiled.simd.memory import LINE, PIECE, Arena

# In numbers of float32: what a piece holds.
WHOLE = PIECE // 4
# Together more than two pieces; one array larger than a piece, and small ones after it.
SHAPES = [
    (1,), (3, 5), (LINE,), (LINE + 1,), (2, 3, 7), (WHOLE // 2, 1), (WHOLE // 2 + 1,), (17,),
    (3, WHOLE // 2), (5,), (WHOLE,), (WHOLE - LINE,), (LINE - 1,), (0,), (9,),
]  # fmt: skip


def test_arrays_are_zero_begin_on_cache_lines_and_do_not_overlap() -> None:
    arena = Arena()
    arrays = [arena.zeros(*shape) for shape in SHAPES]
    for number, array in enumerate(arrays):
        assert (array.shape, array.dtype) == (SHAPES[number], np.float32)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not array.any()
        assert array.ctypes.data % 64 == 0 or not array.size
    for number, array in enumerate(arrays):
        array[...] = number + 1
    for number, array in enumerate(arrays):
        assert (array == number + 1).all()


def test_what_is_handed_out_later_is_zero_beside_arrays_in_use() -> None:
    arena = Arena()
    for size in (LINE + 1, 1, LINE, 37, WHOLE, 5):
        array = arena.zeros(size)
        assert not array.any()
        array[...] = np.nan


def test_small_arrays_lie_in_one_piece() -> None:
    arena = Arena()
    first, second = arena.zeros(LINE + 1), arena.zeros(3)
    assert second.ctypes.data - first.ctypes.data == 2 * 64


def test_arrays_outlive_their_arena() -> None:
    array = Arena().zeros(2, 5)
    gc.collect()
    array[...] = 7
    assert (array == 7).all()
