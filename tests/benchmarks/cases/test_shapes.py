"""The sizes of named and typed shapes."""

import json

import pytest

from benchmarks import ROOT, cases
from benchmarks.cases import shapes
from benchmarks.cases.shapes import MICRO_BATCHES, SHAPES
from benchmarks.models.workloads import WORKLOADS
from tinygpt_np.compiled.engine import micro_batches

NAMES = f"must be {', '.join(SHAPES)} or sizes such as N=512,C=384, not "


@pytest.mark.parametrize("name", [name for name in MICRO_BATCHES if name in WORKLOADS])
def test_a_micro_batch_is_that_of_the_workload_of_its_name(name: str) -> None:
    found, work = MICRO_BATCHES[name], WORKLOADS[name]
    parts = micro_batches(work.batch_size, work.block_size)
    assert (found.batch, found.uses) == (parts[0].stop - parts[0].start, len(parts))
    assert found[1:5] == (work.block_size, work.n_head, work.n_embd, work.vocab_size)


def test_sizes_are_those_of_the_results_that_are_kept() -> None:
    path = ROOT / "benchmarks/results/ice-lake.json"
    kept = {
        (record["operation"], record["shape"]): record["sizes"]
        for record in json.loads(path.read_text(encoding="utf-8"))["cases"]
    }
    assert {name for name, _ in kept} == {*cases.GPT2}
    for (operation, shape), sizes in kept.items():
        assert cases.sizes(operation, shape) == sizes


def test_a_new_shape_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    part = shapes.MicroBatch(batch=2, time=3, heads=5, width=35, vocab=11, uses=1)
    monkeypatch.setitem(MICRO_BATCHES, "new", part)
    assert {name: cases.sizes(name, "new") for name in cases.OPERATIONS} == {
        "matmul": {"N": 6, "C": 35, "K": 140},
        "softmax": {"N": 30, "V": 3},
        "attention": {"B": 2, "T": 3, "H": 5, "D": 7},
        "cross_entropy": {"N": 6, "V": 11},
        "layer_norm": {"N": 6, "C": 35},
        "gelu": {"P": 840},
        "adamw": {"P": 4900},
        "rms_norm": {"N": 6, "C": 35},
        "rotary": {"B": 2, "T": 3, "H": 10, "R": 3},
        "swiglu": {"N": 6, "F": 140},
        "relu_squared": {"P": 840},
        "muon": {"B": 2, "C": 35, "K": 140},
    }


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ("N=512,C=384,K=1536", (512, 384, 1536)),
        ("K=7", (192, 128, 7)),
        ("lecture,K=7", (512, 384, 7)),
        ("awkward, N = 1", (1, 97, 389)),
        ("N=C=K=64", (64, 64, 64)),
        ("N=C=K=64,K=65", (64, 64, 65)),
    ],
)
def test_typed_sizes_replace_those_of_a_named_shape(shape: str, numbers: tuple[int, ...]) -> None:
    assert tuple(cases.sizes("matmul", shape).values()) == numbers
    assert cases.sizes("matmul", "cpu") == {"N": 192, "C": 128, "K": 512}  # It is not changed.


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("big", f"{NAMES}big"),
        ("", f"{NAMES}nothing"),
        ("N", f"{NAMES}N"),
        ("N=4,X=5", "matmul has the sizes N, C, K, not X"),
        ("cpu,5", "matmul has the sizes N, C, K, not 5"),
        ("n=4", "matmul has the sizes N, C, K, not n"),
        ("=4", "matmul has the sizes N, C, K, not nothing"),
        ("N=4,", "matmul has the sizes N, C, K, not nothing"),
        ("N=0", "N must be from 1 to 1,000,000,000, not 0"),
        ("N=-1", "N must be from 1 to 1,000,000,000, not -1"),
        ("N=1e3", "N must be from 1 to 1,000,000,000, not 1e3"),
        ("N=", "N must be from 1 to 1,000,000,000, not nothing"),
        ("N=C=1000000001", "N must be from 1 to 1,000,000,000, not 1000000001"),
    ],
)
def test_what_is_no_shape_is_refused(shape: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message + "$"):
        cases.sizes("matmul", shape)
