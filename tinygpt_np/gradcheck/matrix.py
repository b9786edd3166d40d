"""The matrix of planted bugs and the checks that detect them: for the terminal, JSON and HTML."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tinygpt_np import ops
from tinygpt_np.gradcheck.causes import VERDICTS, judged, named_mistakes
from tinygpt_np.gradcheck.detectors import AT_INIT, WEAK_CHECKS, MutantResult, RightResult
from tinygpt_np.gradcheck.library_checks import LIBRARY_CHECKS
from tinygpt_np.gradcheck.measure import METHODS
from tinygpt_np.gradcheck.mutations import EQUIVALENT, KINDS, OPERATIONS
from tinygpt_np.gradcheck.verdict import ORACLE_NAMES

LIBRARIES = {
    name + where: check.about + (" at GPT-2's initialisation" if where else "")
    for where in ("", AT_INIT)
    for name, check in LIBRARY_CHECKS.items()
}
DETECTORS = (*METHODS, *WEAK_CHECKS, *LIBRARIES)
DESCRIPTIONS = {**ORACLE_NAMES, **WEAK_CHECKS, **LIBRARIES}
HEADS = {name: name for name in LIBRARIES} | {
    "complex": "complex", "central": "central", "richardson": "Richards.", "taylor": "Taylor",
    "loss": "loss falls", "sum": "y.sum()", "absolute": "absolute", "float32": "float32",
    "init": "init",
}  # fmt: skip


@dataclass(frozen=True)
class BugMatrix:
    """The results of a run.

    operations: those with planted bugs. complete: not interrupted. rights: what the checks of
    libraries report on the right backwards.
    """

    results: tuple[MutantResult, ...]
    operations: tuple[str, ...]
    complete: bool = True
    rights: tuple[RightResult, ...] = ()

    @property
    def detectors(self) -> list[str]:
        """The detectors that were used."""
        used = {name for result in self.results for name in result.detected}
        return [name for name in DETECTORS if name in used or name not in LIBRARIES]

    @property
    def libraries(self) -> list[str]:
        """The libraries whose checks were used."""
        return [name for name in LIBRARY_CHECKS if name in self.detectors]

    @property
    def bugs(self) -> list[MutantResult]:
        """The mutants that change a gradient, or are not listed as changing none."""
        return [result for result in self.results if not result.reason or result.error]

    @property
    def errors(self) -> list[str]:
        """Surviving bugs, and entries of EQUIVALENT that are wrong, in words."""
        found = [f"{where(r)}: {r.before} → {r.after}: {r.error}" for r in self.results if r.error]
        if not self.complete:
            return found
        planted = {(r.operation, r.function, r.before, r.after) for r in self.results}
        gone = [key for key in EQUIVALENT if key[0] in self.operations and key not in planted]
        return found + [
            f"{name}.{function}: {before} → {after}: listed as changing nothing, but no such mutant"
            for name, function, before, after in gone
        ]

    @property
    def kinds(self) -> list[str]:
        """The kinds of bug, the most frequent first."""
        counts = Counter(bug.kind for bug in self.bugs)
        return sorted(counts, key=lambda kind: (-counts[kind], kind))

    def detected(self, detector: str, **of: str) -> tuple[int, int]:
        """Return how many bugs, for example of kind="sign", a detector detected, of how many.

        Bugs in functions whose right backward it accuses are not counted.
        """
        accused = self.accused(detector)
        chosen = [
            bug
            for bug in self.bugs
            if all(getattr(bug, k) == v for k, v in of.items())
            if (bug.operation, bug.function) not in accused
        ]
        return sum(bug.detected[detector] for bug in chosen), len(chosen)

    def accused(self, detector: str) -> list[tuple[str, str]]:
        """Return the operations and functions whose right backward a detector accuses."""
        return [(r.operation, r.function) for r in self.rights if detector in r.accused_by]

    def alarms(self, detector: str) -> str:
        """Return how many right backwards a detector accuses, in words, or ""."""
        accused = len(self.accused(detector))
        return f"accuses {accused} of {len(self.rights)} right backwards" if accused else ""

    def causes(self, kind: str = "") -> Counter[str]:
        """Return how often the causes of the bugs in operations are right: counts of VERDICTS."""
        verdicts = (judged(bug.cause, bug.kind) for bug in self.explained(kind))
        return Counter(verdicts)

    def named(self, kind: str) -> dict[str, int]:
        """Return how often each mistake is named for a kind of bug, the most frequent first."""
        named = (" or ".join(named_mistakes(bug.cause)) for bug in self.explained(kind))
        return dict(Counter(named).most_common())

    def explained(self, kind: str = "") -> list[MutantResult]:
        """Return the bugs that study explains, of one kind or of all."""
        explained = [bug for bug in self.bugs if bug.operation in ops.__all__]
        return [bug for bug in explained if kind in ("", bug.kind)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        counts = {detector: self.detected(detector) for detector in self.detectors}
        return {
            # None after an interruption: the other mutants were not planted.
            "ok": False if self.errors else True if self.complete else None,
            "complete": self.complete,
            "errors": self.errors,
            "detectors": {
                detector: {
                    "about": DESCRIPTIONS[detector],
                    "detected": detected,
                    "bugs": bugs,
                    "accused": len(self.accused(detector)),
                }
                for detector, (detected, bugs) in counts.items()
            },
            "causes": {
                kind: {
                    **{verdict: self.causes(kind)[verdict] for verdict in VERDICTS},
                    "named": self.named(kind),
                }
                for kind in self.kinds
                if self.explained(kind)
            },
            "versions": versions() if self.libraries else {},
            "mutants": [asdict(result) for result in self.results],
        }

    def page(self) -> str:
        """Return the matrix as an HTML page that needs no network."""
        from tinygpt_np.gradcheck.notebook import render

        return render(
            "matrix.html.jinja", matrix=self, heads=HEADS, where=where, versions=versions(),
            descriptions=DESCRIPTIONS, oracles=METHODS, percent=percent, kinds=KINDS,
            verdicts=VERDICTS, judged=judged,
        )  # fmt: skip


def where(result: MutantResult) -> str:
    """Return the operation, function and line of a mutant; line 0 is the whole function."""
    return f"{result.operation}.{result.function}" + (f":{result.line}" if result.line else "")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {check.package: check.version for check in LIBRARY_CHECKS.values()}
    return {name: version for name, version in found.items() if version is not None}


def percent(detected: int, bugs: int) -> str:
    """Return the fraction that was missed; only 0 is shown as 0 %."""
    if not bugs:
        return "-"
    rate = 100 * (bugs - detected) / bugs
    return f"{rate:.1f} %" if 0 < rate < 1 else f"{rate:.0f} %"


def draw(matrix: BugMatrix) -> Group:
    """Return the matrix for the terminal."""
    bugs, listed = matrix.bugs, [r for r in matrix.results if r.reason and not r.error]
    crashed = sum(bool(bug.raised) for bug in bugs)

    def of_operation(kind: str, operation: str) -> tuple[int, int]:
        return matrix.detected("complex", kind=kind, operation=operation)

    def missed(kind: str, detector: str) -> tuple[int, int]:
        detected, planted = matrix.detected(detector, kind=kind)
        return planted - detected, planted

    own = {name: HEADS[name] for name in matrix.detectors if name not in LIBRARIES}
    of_libraries = {name: HEADS[name] for name in matrix.detectors if name in LIBRARIES}
    parts: list[Table | Text] = [
        Text(
            f"{len(matrix.results)} mutants: {len(bugs)} bugs ({crashed} of them make the backward "
            f"raise), {len(listed)} that change no gradient"
        ),
        Text("\nBugs detected by the complex step, of those planted: kinds by operations", "bold"),
        crossed(matrix.kinds, {name: name for name in matrix.operations}, of_operation),
        Text("\nBugs missed by each check: the oracles, then weaker checks", "bold"),
        checks_table(matrix),
        Text("\nBugs missed, of those planted: kinds by checks", "bold"),
        crossed(matrix.kinds, own, missed),
    ]
    if of_libraries:
        used = ", ".join(f"{name} {version}" for name, version in versions().items())
        parts += [
            Text(f"\nBugs missed by the checks of libraries, at their defaults; {used}", "bold"),
            crossed(matrix.kinds, of_libraries, missed),
        ]
    if matrix.explained():
        parts += [
            Text("\nCauses that are given for the bugs in operations", "bold"),
            causes_table(matrix),
        ]
    if listed:
        parts.append(Text("\nMutants that change no gradient", "bold"))
        parts += [Text(f"{where(r)}  {r.before} → {r.after}: {r.reason}") for r in listed]
    return Group(*parts)


def checks_table(matrix: BugMatrix) -> Table:
    """Return how many bugs each check misses, and whether it accuses right backwards."""
    table = table_of("check", ["missed", "of", "rate"], 2)
    table.add_column("", no_wrap=True)
    for name in matrix.detectors:
        detected, planted = matrix.detected(name)
        missing, rate = planted - detected, percent(detected, planted)
        alarms = Text(matrix.alarms(name), "red")
        table.add_row(DESCRIPTIONS[name], str(missing), str(planted), rate, alarms)
    return table


def crossed(
    kinds: Sequence[str], columns: dict[str, str], count: Callable[[str, str], tuple[int, int]]
) -> Table:
    """Return a table of counts as some/all; a cell without bugs is empty. columns: their heads."""
    table = table_of("kind of bug", list(columns.values()), 1)
    for kind in kinds:
        cells = [count(kind, column) for column in columns]
        table.add_row(kind, *(f"{some}/{total}" if total else "" for some, total in cells))
    return table


def causes_table(matrix: BugMatrix) -> Table:
    """Return how often the cause is right, by kind of bug, and which mistakes are named."""
    table = table_of("kind of bug", VERDICTS, 1)
    table.add_column("named", overflow="fold")
    for kind in (*filter(matrix.explained, matrix.kinds), ""):
        counts = matrix.causes(kind)
        named = matrix.named(kind) if kind else {}
        words = ", ".join(f"{mistake or 'none'} {count}" for mistake, count in named.items())
        table.add_row(kind or "all", *(str(counts[each] or "") for each in VERDICTS), words)
    return table


def table_of(name: str, figures: Sequence[str], gap: int) -> Table:
    """Return an empty table with a column of names and columns of figures."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    table.add_column(name, no_wrap=name == "kind of bug")
    for figure in figures:
        table.add_column(figure, justify="right")
    return table


def in_order(
    results: Iterable[MutantResult | RightResult], operations: Sequence[str], complete: bool
) -> BugMatrix:
    """Return the matrix of some results, sorted in the order of the source."""
    found = list(results)
    rights = tuple(result for result in found if isinstance(result, RightResult))
    order = {name: number for number, name in enumerate(reversed(OPERATIONS))}
    ordered = sorted(
        (result for result in found if isinstance(result, MutantResult)),
        key=lambda r: (order[r.operation], r.function, r.line, r.kind, r.after),
    )
    names = tuple(name for name in order if name in operations)
    return BugMatrix(tuple(ordered), names, complete, rights)
