"""The mutants that are said to change nothing."""

from tinygpt_np.gradcheck.mutations import EQUIVALENT, sites


def test_every_one_is_a_mutant_that_is_made() -> None:
    made = {(s.operation, s.function, m.before, m.after) for s in sites() for m in s.mutations()}
    assert set(EQUIVALENT) <= made


def test_every_one_has_a_reason() -> None:
    assert all(len(reason.split()) >= 3 or "0" in reason for reason in EQUIVALENT.values())


def test_they_are_few() -> None:
    assert len(EQUIVALENT) < 0.05 * sum(len(site.mutations()) for site in sites())
