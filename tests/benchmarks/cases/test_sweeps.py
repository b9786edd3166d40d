"""Sweeps of sizes, as typed."""

import pytest

from benchmarks.cases import sweeps


@pytest.mark.parametrize(
    ("text", "letters", "numbers"),
    [
        ("64:512:x2", "", (64, 128, 256, 512)),
        ("64:500:x2", "", (64, 128, 256)),
        ("100:200:x1.41", "", (100, 141, 199)),
        ("64:200:+64", "", (64, 128, 192)),
        ("128, 64,64", "", (64, 128)),
        ("7", "", (7,)),
        ("K=64:128:x2", "K", (64, 128)),
        ("N=C=64:64:x2", "NC", (64,)),
    ],
)
def test_a_sweep_is_ascending_sizes_for_letters(
    text: str, letters: str, numbers: tuple[int, ...]
) -> None:
    assert sweeps.sweep(text) == sweeps.Sweep(tuple(letters), numbers)


def test_the_letters_of_the_operation_are_swept_unless_others_are_typed() -> None:
    own, typed = sweeps.sweep("8,9"), sweeps.sweep("K=8")
    assert own.shapes("NCK", "cpu") == ["N=C=K=8", "N=C=K=9"]
    assert typed.shapes("NCK", "cpu") == ["K=8"]
    assert typed.shapes("NCK", "lecture,N=5") == ["lecture,N=5,K=8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"must be {sweeps.FORMS}, not nothing"),
        ("64:512", f"must be {sweeps.FORMS}, not 64:512"),
        ("64:512:2", f"must be {sweeps.FORMS}, not 64:512:2"),
        ("K=64,,5", f"must be {sweeps.FORMS}, not 64,,5"),
        ("1:" + "9" * 400 + ":x2", f"must be {sweeps.FORMS}, not 1:999"),
        ("512:64:x2", "must rise, unlike 512:64:x2"),
        ("64:512:x1", "must rise, unlike 64:512:x1"),
        ("64:512:+0", "must rise, unlike 64:512:+0"),
        ("0:5:+1", "a size must be from 1 to 1,000,000,000, not 0"),
        ("9:9999999999:x2", "a size must be from 1 to 1,000,000,000, not 1207959552"),
        ("1:101:+1", "must be at most 100 sizes, unlike 1:101:+1"),
    ],
)
def test_what_is_no_sweep_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared in full
        sweeps.sweep(text)
    assert str(refused.value).startswith(message)
    assert len(sweeps.sweep("1:100:+1").numbers) == 100
