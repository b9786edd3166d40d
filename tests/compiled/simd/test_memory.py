import numpy as np

from tinygpt_np.compiled.simd.memory import LINE, PIECE, Arena

# In numbers of float32: what a piece holds.
WHOLE = PIECE // 4
# Together more than two pieces; one array larger than a piece, and small ones after it.
SHAPES = [
    (1,), (3, 5), (LINE,), (LINE + 1,), (WHOLE // 2, 1), (WHOLE // 2 + 1,), (17,), (3, WHOLE // 2),
    (5,), (WHOLE,), (WHOLE - LINE,), (LINE - 1,), (0,), (9,),
]  # fmt: skip


def test_arrays_are_zero_begin_on_cache_lines_and_do_not_overlap() -> None:
    arena, arrays = Arena(), list[np.ndarray]()
    for number, shape in enumerate(SHAPES):
        array = arena.zeros(*shape)
        assert (array.shape, array.dtype) == (shape, np.float32)
        assert array.flags.c_contiguous
        assert not array.any()
        assert array.ctypes.data % 64 == 0 or not array.size
        array[...] = number + 1
        arrays.append(array)
    assert arrays[3].ctypes.data - arrays[2].ctypes.data == 4 * LINE  # In one piece.
    del arena
    for number, array in enumerate(arrays):
        assert (array == number + 1).all()
