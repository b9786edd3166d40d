import pytest

from tinygpt_np.study.source.shapes import contradicts

NEW: dict[str, int] = {}
KNOWN = {"N": 6, "C": 8, "V": 11}
RIGHT = [
    ("(N, C)", (6, 8), KNOWN), ("()", (), KNOWN), ("(N, 3C)", (6, 24), KNOWN),
    ("(N, 1)", (6, 1), KNOWN), ("(..., V)", (2, 3, 11), KNOWN), ("(..., V)", (11,), KNOWN),
    ("(...)", (2, 3), KNOWN), ("(T, T, 2D)", (5, 5, 6), NEW),
]  # fmt: skip
WRONG = [
    ("(N, C)", (8, 6), KNOWN), ("(N, C)", (6,), KNOWN), ("(N, C)", (6, 8, 1), KNOWN),
    ("()", (1,), KNOWN), ("(N, 3C)", (6, 25), KNOWN), ("(N, 1)", (6, 6), KNOWN),
    ("(..., V)", (11, 2), KNOWN), ("(..., N, V)", (11,), KNOWN), ("(T, T)", (5, 4), NEW),
]  # fmt: skip


@pytest.mark.parametrize(("stated", "shape", "sizes"), [*RIGHT, *WRONG])
def test_another_shape_contradicts(
    stated: str, shape: tuple[int, ...], sizes: dict[str, int]
) -> None:
    assert contradicts(stated, shape, {**sizes}) == ((stated, shape, sizes) in WRONG)


@pytest.mark.parametrize("remark", ["", "(see below)", "(N, C) and more", "(n, c)", "(N C)"])
def test_a_remark_contradicts_nothing(remark: str) -> None:
    assert not contradicts(remark, (3, 7), {})
