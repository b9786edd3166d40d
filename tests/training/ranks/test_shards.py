"""Every number of a model is in one bucket of one rank, and ranks have about the same work."""

import numpy as np
import pytest

import tinygpt_np as tg
from tinygpt_np.model import muon
from tinygpt_np.storage import parameters
from tinygpt_np.training.ranks.shards import LINE, Layout, Shards

CONFIG = tg.GPTConfig(vocab_size=71, block_size=9, n_layer=3, n_head=2, n_embd=18, bias=True)
MODEL = tg.GPT(CONFIG)
MATRICES = muon.parts_of(CONFIG, MODEL.params)

rank_counts = pytest.mark.parametrize("ranks", [1, 2, 3, 7])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameters, "BLOCK", 500)


@rank_counts
@pytest.mark.parametrize("matrices", [{}, MATRICES], ids=["adamw", "muon"])
def test_every_number_belongs_to_one_rank(ranks: int, matrices: dict[str, list[slice]]) -> None:
    layout = Layout(MODEL.params)
    owned = layout.views(layout.zeros())
    for rank in range(ranks):
        for piece in Shards(layout, ranks, rank, matrices).own(owned).values():
            piece += 1
    for name, times in owned.items():
        assert (times == 1).all(), name


@rank_counts
def test_a_bucket_is_the_part_of_the_flat_array_with_its_pieces(ranks: int) -> None:
    layout = Layout(MODEL.params)
    flat = layout.zeros()
    views = layout.views(flat)
    shards = Shards(layout, ranks)
    for number, bucket in enumerate(shards.buckets, start=1):
        assert flat[bucket.start : bucket.stop].max() == 0
        flat[bucket.start : bucket.stop] = number
        for piece in bucket.pieces:
            assert (views[piece.tensor][piece.rows] == number).all()
    sizes = [bucket.stop - bucket.start for bucket in shards.buckets]
    assert ranks == 1 or max(sizes) < 500 + 2 * LINE


def test_blocks_of_rows_are_those_over_which_the_norm_is_summed() -> None:
    params = MODEL.params
    whole = [rows.stop - rows.start for p in params.values() for rows in parameters.blocks(p.shape)]
    pieces = [Shards(Layout(params), 3, rank).own(params) for rank in range(3)]
    found = [
        rows.stop - rows.start
        for own in pieces
        for piece in own.values()
        for rows in parameters.blocks(piece.shape)
    ]
    assert sorted(found) == sorted(whole)


def test_the_work_of_ranks_is_about_the_same() -> None:
    model = tg.GPT(tg.GPTConfig(vocab_size=997, block_size=64, n_layer=4, n_head=4, n_embd=64))
    for matrices, bound in (({}, 1.1), (muon.parts_of(model.config, model.params), 1.4)):
        sizes: list[int] = []
        for rank in range(4):
            own = Shards(Layout(model.params), 4, rank, matrices).own(model.params)
            costs = [p.size * (min(p.shape) if name in matrices else 1) for name, p in own.items()]
            sizes.append(sum(costs))
        assert max(sizes) < bound * np.mean(sizes)


def test_the_embeddings_are_last_and_each_tensor_begins_on_a_cache_line() -> None:
    layout = Layout(MODEL.params)
    assert list(layout.shapes)[-2:] == ["wte.weight", "wpe.weight"]
    assert list(layout.shapes)[:2] == ["ln_f.bias", "ln_f.weight"]
    for view in layout.views(layout.zeros()).values():
        assert view.ctypes.data % 64 == 0
        assert view.flags.c_contiguous
