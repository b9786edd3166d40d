"""Each exercise has a source that is right, and calls that tell its axes apart."""

from itertools import pairwise

import numpy as np
import pytest

from tinygpt_np.gradcheck.cases import variants_of
from tinygpt_np.learn.course import Exercise, course, find
from tinygpt_np.learn.sources import MODELS, source_of, targets_of

WRITTEN = [each for each in course() if each.kind in ("lines", "closed")]


def named(exercises: list[Exercise]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exercise", exercises, ids=[e.name for e in exercises])


@pytest.mark.parametrize("name", ["softmax", "cross_entropy", "layer_norm", "rms_norm"])
def test_lines_are_asked_of_the_steps_where_there_is_a_closed_form(name: str) -> None:
    assert source_of(find(name)).backward.name == "backward_steps"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_called_in_all_its_configurations(name: str) -> None:
    found = list(targets_of(find(name)))
    assert found[0].title == "as in GPT-2"
    assert len({each.title for each in found}) == len(found) >= 3


@named([each for each in WRITTEN if each.subject not in MODELS])
def test_an_operation_is_called_in_all_its_ways(exercise: Exercise) -> None:
    found = list(targets_of(exercise))
    variants = variants_of(exercise.subject) if exercise.subject not in WARM_UPS else [""]
    assert len(found) == len(variants)


WARM_UPS = {each.subject for each in WRITTEN if each.level == 1} | {"micro_batches"}


@named([each for each in WRITTEN if each.subject not in MODELS])
def test_a_seed_changes_the_values_of_a_call_and_nothing_else_does(exercise: Exercise) -> None:
    first, same, other = (next(targets_of(exercise, seed)).args for seed in (0, 0, 1))
    np.testing.assert_equal(first, same)
    floats = next(targets_of(exercise)).wrt
    assert [np.shape(first[n]) for n in floats] == [np.shape(other[n]) for n in floats]
    assert all(not np.array_equal(first[n], other[n]) for n in floats)


@pytest.mark.parametrize(
    ("name", "sizes", "shapes"),
    [
        ("softmax", {"V": 9}, {"x": (2, 3, 9)}),
        ("layer_norm", {"N": 2, "C": 9}, {"x": (2, 9), "weight": (9,), "bias": (9,)}),
        ("sum", {"T": 1, "C": 9}, {"x": (1, 6, 9)}),
    ],
)
def test_sizes_are_those_of_letters(
    name: str, sizes: dict[str, int], shapes: dict[str, tuple[int, ...]]
) -> None:
    args = next(targets_of(find(name), sizes=sizes)).args
    assert {n: np.shape(args[n]) for n in shapes} == shapes


@named(WRITTEN)
def test_no_two_axes_of_an_argument_have_the_same_size(exercise: Exercise) -> None:
    # Two that agree would hide a wrong axis; a mask of attention is (T, T) by its nature.
    for name, arg in next(targets_of(exercise)).args.items():
        if name != "mask":
            assert all(a != b for a, b in pairwise(sorted(np.shape(arg)))), name
