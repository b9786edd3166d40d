import pytest

from tinygpt_np.study.source.shapes import Sizes, contradicts

RIGHT: list[tuple[str, tuple[int, ...]]] = [
    ("(N, C)", (6, 8)), ("(C,)", (8,)), ("()", ()), ("(N, 3C)", (6, 24)), ("(N, 1)", (6, 1)),
    ("(..., V)", (2, 3, 11)), ("(..., V)", (11,)), ("(...)", (2, 3)), ("(...)", ()),
]  # fmt: skip
WRONG: list[tuple[str, tuple[int, ...]]] = [
    ("(N, C)", (8, 6)), ("(N, C)", (6,)), ("(N, C)", (6, 8, 1)), ("(C,)", ()), ("()", (1,)),
    ("(N, 3C)", (6, 25)), ("(N, 1)", (6, 6)), ("(..., V)", (11, 2)), ("(..., N, V)", (11,)),
]  # fmt: skip


@pytest.mark.parametrize(("stated", "shape"), [*RIGHT, *WRONG])
def test_another_shape_contradicts(stated: str, shape: tuple[int, ...]) -> None:
    found = contradicts(stated, shape, {"N": 6, "C": 8, "V": 11})
    assert found == ((stated, shape) in WRONG)


def test_a_new_letter_takes_the_first_size_it_meets() -> None:
    sizes: Sizes = {}
    assert not contradicts("(N, 3C)", (6, 24), sizes)
    assert sizes == {"N": 6, "C": 8}
    assert contradicts("(C,)", (7,), sizes)


def test_a_letter_has_one_size() -> None:
    assert not contradicts("(T, T)", (5, 5), {})
    assert contradicts("(T, T)", (5, 4), {})


@pytest.mark.parametrize("remark", ["", "(see below)", "(N, C) and more", "(n, c)", "(N C)"])
def test_a_remark_contradicts_nothing(remark: str) -> None:
    sizes: Sizes = {}
    assert not contradicts(remark, (3, 7), sizes)
    assert sizes == {}
