"""One run of a backward: what is wrong in it, and what each name should be."""

import numpy as np
import pytest
from helpers.study_targets import BACKWARD, FORWARD, edited, target

from tinygpt_np.study.proof.judged import Item, Judged
from tinygpt_np.study.proof.prove import Prover
from tinygpt_np.study.proof.truth import Truth


def judged(*edits: tuple[str, str]) -> Judged:
    chosen = target(FORWARD + edited(BACKWARD, *edits))
    return Prover(Truth(chosen), chosen.backwards[0]).judged


@pytest.mark.parametrize(
    ("edits", "wrong"),
    [
        ((), set[Item]()),
        (
            (("da = db * z", "da = db"),),
            {(3, "da"), (5, "dz"), (6, "dx"), (7, "dw"), (8, "x"), (8, "w")},
        ),
        ((("dx = dz @ w.T", "dx = dz @ w.T * 2"),), {(6, "dx"), (8, "x")}),
        ((("dx = dz @ w.T", "dx = dz @ w"),), {(6, "")}),
        ((("return dx, dw", "return dx"),), {(8, "w")}),
        ((("return dx, dw", "return dx, dw * 2"),), {(8, "w")}),
    ],
)  # fmt: skip
def test_wrong_names_are_listed_with_their_steps(
    edits: tuple[tuple[str, str], ...], wrong: set[Item]
) -> None:
    found = judged(*edits)
    assert found.wrong == wrong
    assert found.is_right == (not wrong)


def test_the_right_value_of_a_partial_sum_has_the_terms_so_far() -> None:
    found, right = judged(("dz += db * a", "dz += 3 * db * a")), judged()
    for index in (2, 4, 5):
        expected = right.trace.executed[index].values["dz"]
        value = found.right_value((index, "dz"))
        assert value is not None
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_names_that_forward_has_with_another_value_are_noted() -> None:
    found = judged(("x, w, z, a = saved", "x, w, a, z = saved"))
    assert [*found.unlike_forward(0)] == ["a", "z"]
    assert found.unlike_forward(0)["a"][1] == "a is not what it was in forward"
    assert not judged().unlike_forward(0)
