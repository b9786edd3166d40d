"""Our matrix product against NumPy's, on one thread, over the products of the training steps.

A linear layer takes three of a micro-batch: y = x W, dx = dy Wᵀ and dW += xᵀ dy. So does the head,
whose W is the token embedding transposed. Both sides read and write the same arrays. Where training
packs the weights once a step, a product bears its share of that.

np.dot only writes what ours adds: a BLAS adds at hardly any cost, but NumPy offers no way to ask
for it, and the second pass that it would need is not held against it.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import report, summary
from benchmarks.contest import Progress, machine_facts, write
from benchmarks.rounds import DisagreementError
from benchmarks.works import SEED, WORKS, Work
from tinygpt_np.compiled.engine import micro_batches
from tinygpt_np.compiled.kernels import matmul
from tinygpt_np.compiled.products import HEAD, NOTHING, TOKENS, NumbaProducts
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.threads import limited

SHAPES_OF = [WORKS[name] for name in ("cpu", "lecture", "gpt2")]
ROUNDS = 20
# A turn of a side repeats its product for about this long, in seconds.
TURN_SECONDS = 0.03
# So many numbers of each factor, and of the result's rows and columns, are held against float64.
CHECKED, CHECKED_LINES = 1 << 22, 2048
# Ratios below this are named at the end.
SLOW = 0.9

# (start, c, room): c = start + the product.
Product = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@dataclass
class Case:
    """A product c (M, N) = start + a (M, K) · b (K, N), and what was measured of it.

    pack: what readies b, for `uses` products; empty where it is packed on the way or not at all.
    ours, packing, theirs: the median seconds in each round. wrong: who did not get it right.
    """

    name: str
    a: np.ndarray
    b: np.ndarray
    start: np.ndarray
    c: np.ndarray
    product: Product
    pack: Sequence[Callable[[], None]]
    uses: int
    ours: list[float] = field(default_factory=list[float])
    packing: list[float] = field(default_factory=list[float])
    theirs: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    @property
    def shape(self) -> tuple[int, int, int]:
        return *self.c.shape, self.a.shape[1]

    @property
    def flops(self) -> int:
        return 2 * math.prod(self.shape)

    def run_ours(self, room: np.ndarray) -> None:
        """As in training: what is added to is the result itself."""
        self.product(self.c if self.start.size else NOTHING, self.c, room)

    def run_theirs(self) -> None:
        np.dot(self.a, self.b, out=self.c)

    def run_pack(self) -> None:
        for task in self.pack:
            task()


def cases(work: Work, room: np.ndarray) -> Iterator[Case]:
    """The products of a micro-batch, one block's for all. room: of make_room."""
    parts = micro_batches(work.batch_size, work.block_size)
    rows = (parts[0].stop - parts[0].start) * work.block_size
    rng, arena, C = np.random.default_rng(SEED), Arena(), work.n_embd

    def normal(*shape: int) -> np.ndarray:
        array = arena.zeros(*shape)
        rng.standard_normal(dtype=np.float32, out=array)
        return array

    sizes = {"c_attn": (C, 3 * C), "attn c_proj": (C, C), "c_fc": (C, 4 * C)}
    sizes |= {"mlp c_proj": (4 * C, C), TOKENS: (work.vocab_size, C)}
    params = {name: normal(*size) for name, size in sizes.items()}
    ours = NumbaProducts(params, len(parts))

    def packing(direction: int, name: str) -> list[Callable[[], None]]:
        panels, _ = ours.operands[direction][name]
        return [
            functools.partial(matmul.pack_columns, *each)
            for each in ours.packings
            if each[-1] is panels
        ]

    def backward(dy: np.ndarray, name: str) -> Product:
        return lambda _, dx, room: ours.backward(dy, name, dx, room)

    for parameter, matrix in params.items():
        head = parameter == TOKENS
        name, weight = (HEAD, matrix.T) if head else (parameter, matrix)
        x, dy = normal(rows, weight.shape[0]), normal(rows, weight.shape[1])
        y, dx, dmatrix = arena.zeros(*dy.shape), arena.zeros(*x.shape), arena.zeros(*matrix.shape)
        # Of the head the first micro-batch, whose gradient is added to nothing.
        left, right, start = (dy, x, NOTHING) if head else (x, dy, normal(*matrix.shape))
        of = f"{work.name} {name}"
        uses = len(parts)
        forward = functools.partial(ours.forward, x, name)
        gradient = functools.partial(ours.gradient, left, right)
        yield Case(f"{of} y", x, weight, NOTHING, y, forward, packing(0, name), uses)
        yield Case(
            f"{of} dx", dy, weight.T, NOTHING, dx, backward(dy, name), packing(1, name), uses
        )
        yield Case(
            f"{of} d{'wte' if head else 'W'}", left.T, right, start, dmatrix, gradient, [], 1
        )


def check(case: Case, room: np.ndarray) -> None:
    """Notes in case.wrong who errs by more than K·eps·(|start| + Σ|a||b|), K the depth."""
    rows, columns = (picked(count, case.shape[2]) for count in case.c.shape)
    a, b = case.a[rows].astype(np.float64), case.b[:, columns].astype(np.float64)
    truth, size = a @ b, np.abs(a) @ np.abs(b)
    start = case.start[np.ix_(rows, columns)] if case.start.size else np.zeros_like(truth)
    unit = case.shape[2] * float(np.finfo(np.float32).eps)

    def right(truth: np.ndarray, bound: np.ndarray) -> bool:
        # So written that NaN does not pass; what was left out is looked at for it, too.
        error = np.abs(case.c[np.ix_(rows, columns)] - truth)
        return bool((error <= bound).all() and np.isfinite(case.c).all())

    case.run_pack()
    case.c.fill(np.nan)
    case.product(case.start, case.c, room)
    ours = right(truth + start, unit * (size + np.abs(start)))
    if case.start.size:  # As it will be timed, where nothing can be poisoned.
        case.c[...] = case.start
        case.run_ours(room)
        ours = ours and right(truth + start, unit * (size + np.abs(start)))
    case.c.fill(np.nan)
    case.run_theirs()
    theirs = right(truth, unit * size)
    case.wrong = [name for name, is_right in (("ours", ours), ("NumPy", theirs)) if not is_right]
    case.c.fill(0)


def picked(count: int, depth: int) -> np.ndarray:
    """Indices of rows or columns, from the first to the last: all, or as many as are checked."""
    most = min(CHECKED_LINES, CHECKED // depth)
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def turn(step: Callable[[], None], most: float) -> float:
    """The median seconds of a step that is repeated for about so long, at least once."""
    seconds: list[float] = []
    while sum(seconds) < most:
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def take_turns(case: Case, number: int, room: np.ndarray) -> None:
    """One round of a case; who begins changes from round to round."""

    def ours() -> tuple[float, float]:
        packing = turn(case.run_pack, TURN_SECONDS / case.uses) if case.pack else 0.0
        return turn(lambda: case.run_ours(room), TURN_SECONDS), packing

    if number % 2:
        theirs = turn(case.run_theirs, TURN_SECONDS)
        product, packing = ours()
    else:
        product, packing = ours()
        theirs = turn(case.run_theirs, TURN_SECONDS)
    case.ours.append(product)
    case.packing.append(packing)
    case.theirs.append(theirs)


def run(works: Sequence[Work], rounds: int, path: Path | None) -> bool:
    """Measures all products, shows them, and writes all of it to `path`.

    Returns whether it came to its end; Ctrl-C keeps the rounds that were whole. What is wrong is
    not timed, and in the end raises DisagreementError.
    """
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    facts, progress = machine_facts(errors), Progress(errors)
    found: list[Case] = []
    complete = False
    try:
        with limited(1), progress.status:
            measure(works, rounds, found, progress)
        complete = True
    except KeyboardInterrupt:
        pass
    whole = min((len(case.theirs) for case in found if not case.wrong), default=0)
    results = [summarise(case, whole) for case in found]
    show(results, whole, complete, console)
    if results:
        about = {"benchmark": "matmul", "complete": complete, "threads": 1, "rounds": whole}
        totals = overall(results)
        write(path, {**about, "machine": facts, "overall": totals, "contests": results})
    if wrong := [case.name for case in found if case.wrong]:
        raise DisagreementError(f"WRONG: {', '.join(wrong)}")
    return complete


def measure(works: Sequence[Work], rounds: int, found: list[Case], progress: Progress) -> None:
    """Adds the cases to `found`, checked, and then takes the rounds."""
    room = matmul.make_room(Arena())
    for work in works:
        for case in cases(work, room):
            progress.say(f"checking {case.name}")
            check(case, room)
            found.append(case)
    right = [case for case in found if not case.wrong]
    began = time.monotonic()
    for number in range(rounds):
        spent = time.monotonic() - began
        left = f"about {spent / number * (rounds - number):.0f} s left" if number else "…"
        for case in right:
            progress.say(f"round {number + 1}/{rounds}, {left}: {case.name}")
            take_turns(case, number, room)


def summarise(case: Case, rounds: int) -> dict[str, Any]:
    """In values for JSON. ratio: NumPy's seconds by ours, our share of the packing included."""
    ours, packing, theirs = (each[:rounds] for each in (case.ours, case.packing, case.theirs))
    found: dict[str, Any] = {"name": case.name, "shape": case.shape, "wrong": case.wrong}
    found |= {"packed_for": case.uses if case.pack else None}
    found |= {"seconds": {"ours": ours, "packing": packing, "NumPy": theirs}}
    if rounds and not case.wrong:
        whole = [a + b / case.uses for a, b in zip(ours, packing, strict=True)]
        ratio = summary.estimate([b / a for a, b in zip(whole, theirs, strict=True)])
        found["ours"] = case.flops / statistics.median(whole)
        found["NumPy"] = case.flops / statistics.median(theirs)
        found["ratio"] = asdict(ratio)
    return found


def overall(results: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The geometric mean of the ratios, the smallest, and those below SLOW; None without any."""
    ratios = {each["name"]: each["ratio"]["median"] for each in results if "ratio" in each}
    if not ratios:
        return None
    smallest = min(ratios, key=lambda name: ratios[name])
    return {
        "mean": statistics.geometric_mean(ratios.values()),
        "smallest": {"name": smallest, "ratio": ratios[smallest]},
        "slow": {name: ratio for name, ratio in ratios.items() if ratio < SLOW},
    }


def show(results: Sequence[dict[str, Any]], rounds: int, complete: bool, console: Console) -> None:
    """The table, and what all of it comes to."""
    if not complete:
        console.print(f"[bold]stopped after {rounds} whole rounds[/bold]")
    table = Table(title=f"products on one thread: {rounds} rounds", title_justify="left")
    table.add_column("")
    for label in ("shape", "ours", "NumPy", "ours by NumPy"):
        table.add_column(label, justify="right")
    before = ""
    for each in results:
        work = each["name"].partition(" ")[0]
        if work != before:
            table.add_section()
        before = work
        shape = "×".join(map(str, each["shape"]))
        if each["wrong"]:
            table.add_row(each["name"], shape, "", "", f"WRONG: {', '.join(each['wrong'])}")
        elif rounds:
            speeds = (f"{each[side] / 1e9:.1f}" for side in ("ours", "NumPy"))
            table.add_row(each["name"], shape, *speeds, report.by(each["ratio"]))
    if table.row_count:
        console.print(table)
    if totals := overall(results):
        console.print("shape: rows × columns × depth; speeds: GFLOP/s")
        console.print(verdict(totals))


def verdict(totals: dict[str, Any]) -> str:
    smallest = totals["smallest"]
    lines = [
        f"geometric mean of the ratios: {totals['mean']:.2f}",
        f"smallest: {smallest['ratio']:.2f}, {smallest['name']}",
    ]
    slow = [f"  {ratio:.2f} {name}" for name, ratio in totals["slow"].items()]
    return "\n".join([*lines, f"below {SLOW}:{'' if slow else ' none'}", *slow])
