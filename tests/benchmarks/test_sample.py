"""Sampling: the same texts on all sides, the check of logits before, and the parts of a text."""

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from toys import TINY, side

from benchmarks import ours, sample, works
from benchmarks.rounds import DisagreementError, Measured
from benchmarks.worker import WARM_UP_STEPS, Job
from benchmarks.workers import Side
from tinygpt_np.model.decoder import Decoder
from tinygpt_np.model.gpt import GPT

TOKENS = 11


def job(backend: str = "numpy", cached: bool = True) -> Job:
    return ours.sample(asdict(TINY), TOKENS, backend, cached)


def text_of(found: Job) -> list[int]:
    """The first whole text after the warm-up."""
    for _ in range(WARM_UP_STEPS):
        found.step(*found.draw())
    return [int(found.step(*found.draw())) for _ in range(TOKENS)]


def test_a_turn_after_the_warm_up_is_the_text_that_generate_makes() -> None:
    model = GPT(TINY.config)
    model.params = works.sampling_params(TINY)
    expected = [int(t) for t in model.generate(np.zeros(1, np.int64), TOKENS, seed=works.SEED)]
    assert text_of(job()) == expected


@pytest.mark.parametrize(("backend", "cached"), [("numpy", False), ("numba", True)])
def test_every_side_of_ours_makes_the_same_text(backend: str, cached: bool) -> None:
    assert text_of(job(backend, cached)) == text_of(job())


def test_the_others_read_the_window_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "read", None)
    assert len(text_of(job(cached=False))) == TOKENS


def test_texts_follow_one_another_after_a_piece_of_one() -> None:
    found = works.texts_on_end(lambda: iter("abc"), 2)
    assert "".join(itertools.islice(found, 9)) == "ababcabca"


def test_sides_that_sample_agree_on_their_logits() -> None:
    expected = job().agreement(None)
    assert len(expected) == 4
    assert job("numba").agreement(None) == pytest.approx(expected, rel=1e-5)
    assert job(cached=False).agreement(None) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_logits_that_are_right_pass(backend: str) -> None:
    sample.check(TINY, backend)


@pytest.mark.parametrize(("spoil", "after"), [(2e-5, 1), (float("nan"), 1), (2e-5, 7)])
def test_logits_that_are_wrong_are_refused(
    monkeypatch: pytest.MonkeyPatch, spoil: float, after: int
) -> None:
    read, count = Decoder.read, 0

    def spoiled(self: Decoder, tokens: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return read(self, tokens) * (1 + spoil * (count >= after))

    monkeypatch.setattr(Decoder, "read", spoiled)
    with pytest.raises(DisagreementError, match=f"WRONG: logits in numpy after {after} tokens"):
        sample.check(TINY, "numpy")


def test_recomputing_comes_first_and_pytorch_only_where_it_is() -> None:
    names = ["recompute", "ours, NumPy", "ours, Numba"]
    assert [each.name for each in sample.sides(TINY, TOKENS, 1, pytorch=False)] == names
    found = sample.sides(TINY, TOKENS, 1, pytorch=True)
    assert [each.name for each in found] == [*names, "PyTorch"]


def test_no_side_steps_beyond_the_warm_up_before_its_first_turn() -> None:
    assert {each.warm_up for each in sample.sides(TINY, TOKENS, 1, pytorch=True)} == {0.0}


def measured() -> Measured:
    """Two rounds of texts of four tokens; ours takes a half of recompute's time, then a fifth."""
    found = Measured()
    found.turns["recompute"] = [[2.0, 2.0, 10.0, 10.0], [4.0, 4.0, 20.0, 20.0]]
    found.turns["ours"] = [[1.0, 1.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]]
    return found


def part(label: str, name: str) -> dict[str, Any]:
    return sample.summarise(measured(), first=2, tokens=4)["parts"][label][name]


@pytest.mark.parametrize(
    ("label", "speed", "ratio"),
    [("all 4", 4 / 9, 4.0), ("the first 2", 2 / 3, 2.0), ("the other 2", 2 / 6, 5.0)],
)
def test_each_part_has_its_own_speed_and_ratio(label: str, speed: float, ratio: float) -> None:
    found = part(label, "ours")
    assert found["tokens_per_second"] == pytest.approx(speed)
    assert found["ratio"]["median"] == pytest.approx(ratio)


def test_the_seconds_of_every_round_are_kept() -> None:
    assert part("the other 2", "recompute")["seconds"] == [20.0, 40.0]


def shown(found: Measured) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        sample.show(sample.summarise(found, first=2, tokens=4), console)
    return capture.get()


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    assert "…" not in shown(measured())
    assert "5.00 (5.00 – 5.00)" in shown(measured())


def test_what_was_left_out_is_shown_with_its_reason() -> None:
    found = measured()
    found.left_out["PyTorch"] = "PyTorch has stopped: no [disk]"
    assert "left out: PyTorch has stopped: no [disk]" in shown(found)


def test_a_run_stopped_before_its_first_round_shows_no_table() -> None:
    found = Measured(turns={"recompute": []}, stopped=True)
    assert shown(found) == "stopped after 0 whole rounds\n"


def test_a_run_takes_whole_texts_and_writes_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    tiny = replace(TINY, n_layer=1)
    assert sample.run(tiny, TOKENS, 1, 2, False, path)
    written = json.loads(path.read_text())
    (found,) = written["contests"]
    assert (written["complete"], found["rounds"], found["tokens"]) == (True, 2, TOKENS)
    assert list(found["parts"]) == ["all 11", "the first 4", "the other 7"]
    assert set(found["parts"]["all 11"]) == {"recompute", "ours, NumPy", "ours, Numba"}


def test_ctrl_c_keeps_the_rounds_that_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setattr("benchmarks.workers.PATIENCE", 0.1)
    at = WARM_UP_STEPS + TOKENS + 3  # in its second turn

    def toys(*_: Any) -> list[Side]:
        return [side("recompute"), side("b", interrupts_at=at)]

    monkeypatch.setattr(sample, "sides", toys)
    assert not sample.run(TINY, TOKENS, 1, 9, False, tmp_path / "all.json")
    written = json.loads((tmp_path / "all.json").read_text())
    assert not written["complete"]
    assert written["contests"][0]["rounds"] == 1
