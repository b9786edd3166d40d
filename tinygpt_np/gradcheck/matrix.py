"""Who noticed which planted bugs: counted, for the terminal, as JSON, and as a page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tinygpt_np.gradcheck.equivalents import EQUIVALENT
from tinygpt_np.gradcheck.jury import HABITS
from tinygpt_np.gradcheck.measure import METHODS
from tinygpt_np.gradcheck.mutants import ROOMS, Result
from tinygpt_np.gradcheck.mutations import KINDS
from tinygpt_np.gradcheck.verdict import ORACLE_NAMES

JUDGES = (*METHODS, *HABITS)
DESCRIPTIONS = {**ORACLE_NAMES, **HABITS}
HEADS = {
    "complex": "complex", "central": "central", "richardson": "Richards.", "taylor": "Taylor",
    "loss": "loss falls", "sum": "y.sum()", "absolute": "absolute", "float32": "float32",
    "init": "init",
}  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """The results of a run. rooms: what was tried; complete: whether all of it."""

    results: tuple[Result, ...]
    rooms: tuple[str, ...]
    complete: bool = True

    @property
    def bugs(self) -> list[Result]:
        """The mutants that change a gradient, or are not said to change none."""
        return [result for result in self.results if not result.reason or result.error]

    @property
    def errors(self) -> list[str]:
        """What is wrong with our proof, in words."""
        found = [f"{where(r)}: {r.before} → {r.after}: {r.error}" for r in self.results if r.error]
        if not self.complete:
            return found
        tried = {(r.room, r.function, r.before, r.after) for r in self.results}
        gone = [key for key in EQUIVALENT if key[0] in self.rooms and key not in tried]
        return found + [
            f"{room}.{function}: {before} → {after}: listed as changing nothing, but no such mutant"
            for room, function, before, after in gone
        ]

    @property
    def kinds(self) -> list[str]:
        """The kinds of bug, the most frequent first."""
        counts: dict[str, int] = {}
        for bug in self.bugs:
            counts[bug.kind] = counts.get(bug.kind, 0) + 1
        return sorted(counts, key=lambda kind: (-counts[kind], kind))

    def noticed(self, judge: str, **of: str) -> tuple[int, int]:
        """How many bugs a judge noticed, of how many; of: kind="sign", room="linear"."""
        chosen = [bug for bug in self.bugs if all(getattr(bug, k) == v for k, v in of.items())]
        return sum(bug.noticed[judge] for bug in chosen), len(chosen)

    def to_dict(self) -> dict[str, Any]:
        counts = {judge: self.noticed(judge) for judge in JUDGES}
        return {
            # Of what was not tried, nobody knows.
            "ok": False if self.errors else True if self.complete else None,
            "complete": self.complete,
            "errors": self.errors,
            "judges": {
                judge: {"about": DESCRIPTIONS[judge], "noticed": noticed, "bugs": bugs}
                for judge, (noticed, bugs) in counts.items()
            },
            "mutants": [asdict(result) for result in self.results],
        }

    def page(self) -> str:
        """The matrix as an HTML page that needs no network."""
        import jinja2

        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("tinygpt_np.gradcheck", "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        return environment.get_template("matrix.html.jinja").render(
            matrix=self, judges=JUDGES, heads=HEADS, descriptions=DESCRIPTIONS, where=where,
            oracles=METHODS, percent=percent, kinds=KINDS,
        )  # fmt: skip


def where(result: Result) -> str:
    """The room and the function of a mutant, with the line, if it is one."""
    return f"{result.room}.{result.function}" + (f":{result.line}" if result.line else "")


def percent(noticed: int, bugs: int) -> str:
    """The share that was missed, never rounded to nothing."""
    missed = bugs - noticed
    if not bugs:
        return "-"
    if not missed:
        return "0 %"
    share = 100 * missed / bugs
    return f"{share:.0f} %" if share >= 1 else f"{share:.1f} %"


def draw(matrix: Matrix) -> Group:
    """The matrix for the terminal."""
    bugs, listed = matrix.bugs, [r for r in matrix.results if r.reason and not r.error]
    crashed = sum(bool(bug.raised) for bug in bugs)
    parts: list[Table | Text] = [
        Text(
            f"{len(matrix.results)} mutants: {len(bugs)} bugs ({crashed} of them make the backward "
            f"raise), {len(listed)} that change no gradient"
        ),
        Text("\nBugs noticed by the complex step, of those planted: kinds by operations", "bold"),
        crossed(matrix.kinds, matrix.rooms, lambda k, r: matrix.noticed("complex", kind=k, room=r)),
        Text("\nBugs missed, by those who might notice: our oracles, then habits", "bold"),
        judges_table(matrix),
        Text("\nBugs missed, of those planted: kinds by judges", "bold"),
        crossed(matrix.kinds, JUDGES, lambda k, j: missed(*matrix.noticed(j, kind=k)), HEADS),
    ]
    if listed:
        parts.append(Text("\nMutants that change no gradient", "bold"))
        parts += [Text(f"{where(r)}  {r.before} → {r.after}: {r.reason}") for r in listed]
    return Group(*parts)


def missed(noticed: int, bugs: int) -> tuple[int, int]:
    return bugs - noticed, bugs


def crossed(
    rows: Sequence[str],
    columns: Sequence[str],
    count: Callable[[str, str], tuple[int, int]],
    heads: dict[str, str] | None = None,
) -> Table:
    """A table of counts, some/all; all alone where they are equal, nothing where there is none."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("kind of bug", no_wrap=True)
    for column in columns:
        table.add_column((heads or {}).get(column, column), justify="right")
    for row in rows:
        cells = [count(row, column) for column in columns]
        table.add_row(row, *(f"{some}/{whole}" if whole else "" for some, whole in cells))
    return table


def judges_table(matrix: Matrix) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("judge", "missed", "of", "share"):
        table.add_column(name, justify="left" if name == "judge" else "right")
    for judge in JUDGES:
        noticed, bugs = matrix.noticed(judge)
        table.add_row(DESCRIPTIONS[judge], str(bugs - noticed), str(bugs), percent(noticed, bugs))
    return table


def merged(results: Iterable[Result], rooms: Sequence[str], complete: bool) -> Matrix:
    """The matrix of some results, in the order of the source, however they came."""
    order = {room: number for number, room in enumerate(reversed(ROOMS))}
    ordered = sorted(results, key=lambda r: (order[r.room], r.function, r.line, r.kind, r.after))
    return Matrix(tuple(ordered), tuple(room for room in order if room in rooms), complete)
