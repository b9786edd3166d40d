import pytest

from tinygpt_np.study.shapes import Letters, disagreement


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ("(N, C)", (6, 8)),
        ("(C,)", (8,)),
        ("()", ()),
        ("(N, 3C)", (6, 24)),
        ("(N, 1)", (6, 1)),
        ("(..., V)", (2, 3, 11)),
        ("(..., V)", (11,)),
        ("(...)", (2, 3)),
        ("(...)", ()),
    ],
)
def test_a_shape_agrees_with_what_it_is(stated: str, shape: tuple[int, ...]) -> None:
    assert not disagreement(stated, shape, {"N": 6, "C": 8, "V": 11})


@pytest.mark.parametrize(
    ("stated", "shape"),
    [
        ("(N, C)", (8, 6)),
        ("(N, C)", (6,)),
        ("(N, C)", (6, 8, 1)),
        ("(C,)", ()),
        ("()", (1,)),
        ("(N, 3C)", (6, 25)),
        ("(N, 1)", (6, 6)),
        ("(..., V)", (11, 2)),
        ("(..., N, V)", (11,)),
    ],
)
def test_another_shape_disagrees(stated: str, shape: tuple[int, ...]) -> None:
    assert disagreement(stated, shape, {"N": 6, "C": 8, "V": 11})


def test_a_new_letter_takes_the_size_it_meets_and_keeps_it() -> None:
    letters: Letters = {}
    assert not disagreement("(N, 3C)", (6, 24), letters)
    assert letters == {"N": 6, "C": 8}
    assert disagreement("(C,)", (7,), letters)


def test_a_letter_twice_in_a_shape_is_one_size() -> None:
    assert not disagreement("(T, T)", (5, 5), {})
    assert disagreement("(T, T)", (5, 4), {})


@pytest.mark.parametrize("remark", ["", "(see below)", "(N, C) and more", "(n, c)", "(N C)"])
def test_with_a_remark_nothing_disagrees(remark: str) -> None:
    letters: Letters = {}
    assert not disagreement(remark, (3, 7), letters)
    assert letters == {}
