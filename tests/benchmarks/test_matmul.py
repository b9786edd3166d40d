"""The products of training against NumPy's: which they are, how they are checked and summed up."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from toys import TINY

from benchmarks import matmul
from benchmarks.matmul import Case
from benchmarks.rounds import DisagreementError
from tinygpt_np.compiled import products
from tinygpt_np.compiled.kernels.matmul import make_room
from tinygpt_np.compiled.simd.memory import Arena

ROOM = make_room(Arena())
# Enough rows for four micro-batches, so that weights are packed once a step.
PACKED = replace(TINY, batch_size=150)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "TURN_SECONDS", 1e-4)


def case(name: str, work: Any = TINY) -> Case:
    return next(each for each in matmul.cases(work, ROOM) if each.name == f"tiny {name}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("c_attn y", (20, 36, 12)),
        ("c_attn dx", (20, 12, 36)),
        ("c_attn dW", (12, 36, 20)),
        ("attn c_proj y", (20, 12, 12)),
        ("c_fc y", (20, 48, 12)),
        ("mlp c_proj dW", (48, 12, 20)),
        ("head y", (20, 11, 12)),
        ("head dx", (20, 12, 11)),
        ("head dwte", (11, 12, 20)),
    ],
)
def test_a_shape_is_rows_columns_and_depth(name: str, shape: tuple[int, int, int]) -> None:
    assert case(name).shape == shape


@pytest.mark.parametrize(("work", "rows"), [("cpu", 192), ("lecture", 512), ("gpt2", 128)])
def test_rows_are_those_of_a_micro_batch(work: str, rows: int) -> None:
    sizes = next(each for each in matmul.SHAPES_OF if each.name == work)
    assert next(matmul.cases(replace(sizes, vocab_size=7), ROOM)).shape[0] == rows


@pytest.mark.parametrize("work", [TINY, PACKED])
def test_every_product_is_right(work: Any) -> None:
    for each in matmul.cases(work, ROOM):
        matmul.check(each, ROOM)
        assert each.wrong == [], each.name


def test_weights_are_packed_where_training_packs_them() -> None:
    packed = [each.name for each in matmul.cases(PACKED, ROOM) if each.pack]
    assert packed == [each.name for each in matmul.cases(PACKED, ROOM) if each.name[-1] in "yx"]
    assert not any(each.pack for each in matmul.cases(TINY, ROOM))


def test_what_is_packed_is_what_the_product_reads() -> None:
    packed = case("c_fc y", PACKED)
    packed.product(packed.start, packed.c, ROOM)
    assert not packed.c.any()
    packed.run_pack()
    packed.product(packed.start, packed.c, ROOM)
    assert packed.c.all()


def test_a_gradient_is_added_to_what_is_there() -> None:
    gradient = case("c_fc dW")
    gradient.c.fill(1)
    gradient.run_ours(ROOM)
    assert np.allclose(gradient.c, 1 + gradient.a @ gradient.b, rtol=1e-4, atol=1e-4)


def spoiled(whole: Case, spoil: Callable[[np.ndarray], None]) -> Case:
    def product(start: np.ndarray, c: np.ndarray, room: np.ndarray) -> None:
        whole.product(start, c, room)
        spoil(c)

    return replace(whole, product=product)


def nudge(c: np.ndarray) -> None:
    c[-1, -1] += 1e-2


def lose(c: np.ndarray) -> None:
    c[3, 4] = np.nan


@pytest.mark.parametrize("spoil", [nudge, lose])
@pytest.mark.parametrize("name", ["c_fc y", "c_fc dW"])
def test_a_number_that_is_wrong_is_found(name: str, spoil: Callable[[np.ndarray], None]) -> None:
    bad = spoiled(case(name), spoil)
    matmul.check(bad, ROOM)
    assert bad.wrong == ["ours"]


def nothing(*_: Any) -> None:
    pass


def test_a_number_that_is_not_written_is_found() -> None:
    idle = replace(case("c_fc y"), product=nothing)
    matmul.check(idle, ROOM)
    assert idle.wrong == ["ours"]


def test_a_product_that_adds_to_what_it_should_replace_is_found() -> None:
    whole = case("c_fc y")

    def product(_: np.ndarray, c: np.ndarray, room: np.ndarray) -> None:
        whole.product(c, c, room)

    bad = replace(whole, product=product)
    matmul.check(bad, ROOM)
    assert bad.wrong == ["ours"]


def test_a_gradient_that_forgets_what_was_there_is_found() -> None:
    whole = case("c_fc dW")

    def product(_: np.ndarray, c: np.ndarray, room: np.ndarray) -> None:
        whole.product(products.NOTHING, c, room)

    bad = replace(whole, product=product)
    matmul.check(bad, ROOM)
    assert bad.wrong == ["ours"]


def test_a_gradient_that_is_wrong_only_in_place_is_found() -> None:
    whole = case("c_fc dW")

    def product(start: np.ndarray, c: np.ndarray, room: np.ndarray) -> None:
        whole.product(products.NOTHING if start is c else start, c, room)

    bad = replace(whole, product=product)
    matmul.check(bad, ROOM)
    assert bad.wrong == ["ours"]


def test_numpy_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "run_theirs", nothing)
    each = case("c_fc y")
    matmul.check(each, ROOM)
    assert each.wrong == ["NumPy"]


def test_of_a_long_side_both_ends_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "CHECKED", 500)
    assert list(matmul.picked(4, depth=100)) == [0, 1, 2, 3]
    found = matmul.picked(1000, depth=100)
    assert (len(found), found[0], found[-1]) == (5, 0, 999)


def test_where_numbers_are_sampled_nan_is_found_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matmul, "CHECKED_LINES", 2)
    bad = spoiled(case("c_fc y"), lose)
    matmul.check(bad, ROOM)
    assert bad.wrong == ["ours"]


def timed() -> Case:
    """Two rounds: ours takes 2 s and 4 s, and 4 s of packing for four uses; NumPy twice as long."""
    each = replace(case("c_fc y"), uses=4, pack=[lambda: None])
    each.ours, each.packing, each.theirs = [2.0, 4.0], [4.0, 4.0], [6.0, 10.0]
    return each


def test_packing_is_counted_at_its_share() -> None:
    found = matmul.summarise(timed(), rounds=2)
    assert found["ratio"]["median"] == 2.0
    assert found["ours"] == timed().flops / 4.0


def test_a_round_that_is_not_whole_is_left_out() -> None:
    each = timed()
    each.ours.append(100.0)
    assert matmul.summarise(each, rounds=2)["seconds"]["ours"] == [2.0, 4.0]


@pytest.mark.parametrize(("number", "order"), [(0, "ours theirs"), (1, "theirs ours")])
def test_who_begins_changes_from_round_to_round(
    monkeypatch: pytest.MonkeyPatch, number: int, order: str
) -> None:
    calls: list[str] = []

    def called(name: str) -> Callable[..., None]:
        return lambda *_: calls.append(name)  # pyright: ignore[reportUnknownLambdaType]

    monkeypatch.setattr(Case, "run_ours", called("ours"))
    monkeypatch.setattr(Case, "run_theirs", called("theirs"))
    matmul.take_turns(case("c_fc y"), number, ROOM)
    assert " ".join(dict.fromkeys(calls)) == order


def results(*ratios: float) -> list[dict[str, Any]]:
    return [
        {"name": f"toy {n}", "shape": (1, 2, 3), "wrong": [], "ours": 2e9, "NumPy": 1e9,
         "ratio": {"median": ratio, "low": ratio, "high": ratio}}
        for n, ratio in enumerate(ratios)
    ]  # fmt: skip


def shown(found: list[dict[str, Any]]) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        matmul.show(found, 2, True, console)
    return capture.get()


def test_the_end_tells_mean_smallest_and_what_is_slow() -> None:
    said = shown(results(2.0, 0.5, 0.89, 0.9)).splitlines()[-5:]
    assert said == [
        "geometric mean of the ratios: 0.95",
        "smallest: 0.50, toy 1",
        "below 0.9:",
        "  0.50 toy 1",
        "  0.89 toy 2",
    ]


def test_where_nothing_is_slow_it_is_said() -> None:
    assert shown(results(2.0)).endswith("below 0.9: none\n")


def test_what_is_wrong_is_shown_and_has_no_speed() -> None:
    (wrong,) = results(2.0)
    wrong["wrong"] = ["ours"]
    del wrong["ratio"], wrong["ours"], wrong["NumPy"]
    assert "WRONG: ours" in shown([wrong, *results(3.0)])


def test_the_longest_row_fits_a_terminal_of_80_columns() -> None:
    (found,) = results(1.11)
    found |= {"name": "lecture attn c_proj dW", "shape": (50257, 768, 128)}
    said = shown([found])
    assert "│ lecture attn c_proj dW │" in said
    assert "50257×768×128 │" in said
    assert "1.11 (1.11 – 1.11) │" in said


def test_a_run_writes_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    assert matmul.run([TINY], 2, path)
    written = json.loads(path.read_text())
    assert (written["complete"], written["rounds"], len(written["contests"])) == (True, 2, 15)
    assert written["overall"]["smallest"]["ratio"] > 0


def test_ctrl_c_keeps_the_rounds_that_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_turns = matmul.take_turns

    def interrupted(each: Case, number: int, room: np.ndarray) -> None:
        if number == 2 and each.name == "tiny c_fc y":
            raise KeyboardInterrupt
        take_turns(each, number, room)

    monkeypatch.setattr(matmul, "take_turns", interrupted)
    assert not matmul.run([TINY], 9, tmp_path / "all.json")
    written = json.loads((tmp_path / "all.json").read_text())
    assert (written["complete"], written["rounds"]) == (False, 2)
    assert {len(each["seconds"]["NumPy"]) for each in written["contests"]} == {2}


def test_what_is_wrong_fails_the_run_and_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(each: Case, _: np.ndarray) -> None:
        if each.name == "tiny head y":
            each.wrong = ["ours"]

    monkeypatch.setattr(matmul, "check", wrong)
    with pytest.raises(DisagreementError, match=r"WRONG: tiny head y$"):
        matmul.run([TINY], 1, tmp_path / "all.json")
    written = json.loads((tmp_path / "all.json").read_text())
    found = next(each for each in written["contests"] if each["wrong"])
    assert found["seconds"] == {"ours": [], "packing": [], "NumPy": []}
