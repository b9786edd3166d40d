"""Sizes of a matmul's blocks: whose table counts, and what a damaged one does."""

import json
from pathlib import Path

import pytest

from tinygpt_np.compiled.simd import blocks
from tinygpt_np.compiled.simd.blocks import ANY, CHOICES, SIMILAR, TABLE, Blocks
from tinygpt_np.compiled.simd.vectors import LANES

SIZES = Blocks(32768, 1)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of this machine's sizes, which does not exist yet."""
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))
    path = blocks.own_table()
    path.parent.mkdir(parents=True)
    return path


def chosen() -> tuple[Blocks, str]:
    return blocks.chosen.__wrapped__()


def test_the_table_has_valid_sizes_of_several_processors_and_those_that_others_get() -> None:
    rows = json.loads(TABLE.read_text())
    assert rows.keys() == blocks.read(TABLE).keys() >= {ANY, *SIMILAR.values()}
    assert len(rows) >= 2


def test_a_processor_gets_its_row_or_that_of_a_similar_one(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = blocks.read(TABLE)
    for name in table:
        monkeypatch.setattr(blocks, "processor", lambda name=name: name)
        assert chosen() == (table[name], f"measured on {name}")
    monkeypatch.setattr(blocks, "processor", lambda: "new")
    similar = SIMILAR.get(LANES, ANY)
    assert chosen() == (table[similar], f"measured on {similar}")


def test_sizes_measured_on_this_machine_count_first_and_are_kept_beside_others(own: Path) -> None:
    own.write_text(json.dumps({"other": SIZES._asdict()}))
    assert blocks.keep(SIZES._replace(by_tiles=256)) == own
    assert chosen() == (SIZES._replace(by_tiles=256), "measured on this machine")
    assert blocks.read(own) == {"other": SIZES, blocks.processor(): Blocks(32768, 256)}
    blocks.keep(SIZES)
    assert chosen() == (SIZES, "measured on this machine")


DAMAGE = [
    "", "{", "[]", "3", "null", "\x00", '{"%s": 3}', '{"%s": {}}', '{"%s": {"in_place": 0}}',
    '{"%s": {"in_place": 7, "by_tiles": 1}}', '{"%s": {"in_place": -1, "by_tiles": 1}}',
    '{"%s": {"in_place": [], "by_tiles": 1}}', '{"%s": {"in_place": "0", "by_tiles": 1}}',
    '{"%s": {"in_place": 0, "by_tiles": 1, "more": 1}}', '{"%s": {"in_place": 0, "by_tiles": NaN}}',
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_table_of_this_machine_is_ignored_and_can_be_replaced(
    own: Path, text: str
) -> None:
    before = chosen()
    own.write_text(text.replace("%s", blocks.processor()))
    assert chosen() == before
    blocks.keep(SIZES)
    assert chosen() == (SIZES, "measured on this machine")


def test_a_table_that_is_no_text_is_ignored(own: Path) -> None:
    own.write_bytes(b"\xff\xfe{")
    assert blocks.read(own) == {}
    assert blocks.read(own.parent) == {}


def test_every_size_of_blocks_has_choices() -> None:
    assert {*CHOICES} == {*Blocks._fields}
