"""Study two functions of a notebook or script, and show the result as HTML or text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from tinygpt_np.gradcheck.notebook import comparison, framed, templates
from tinygpt_np.gradcheck.report import WIDTH, Row, plain_text
from tinygpt_np.study.proof.sheet import Sheet, SheetRow, study
from tinygpt_np.study.proof.verdicts import MISTAKES, BackwardLine, Proof
from tinygpt_np.study.render.highlight import highlight
from tinygpt_np.study.render.terminal import backward_cells, draw, summary, why_no_backward
from tinygpt_np.study.source.targets import target_of

# The class of a verdict by its colour in the terminal.
CLASSES = {"green": "right", "bold red": "wrong", "yellow": "warning"}


@dataclass(frozen=True, repr=False)
class Study:
    """A backward checked line by line."""

    sheet: Sheet

    @property
    def ok(self) -> bool:
        """Whether no line is wrong."""
        return self.sheet.ok

    @property
    def first_wrong(self) -> BackwardLine | None:
        """The first wrong line, in the order in which the lines run, or None."""
        return self.sheet.proofs[0].first_wrong

    @property
    def rows(self) -> tuple[Row, ...]:
        """The figures of each gradient that a line sets or returns."""
        return tuple(gradient.row for gradient in self.sheet.all_verdicts)

    def __str__(self) -> str:
        """Return what `tinygpt study` prints."""
        return plain_text(draw(self.sheet, WIDTH))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the lines for a notebook, with heat maps of the gradients that are wrong."""
        sheet, (proof, *_) = self.sheet, self.sheet.proofs
        body = templates(__name__).get_template("notebook.html.jinja").render(
            target=sheet.target, ok=sheet.ok, summary=summary(sheet).plain,
            lines=[line for row in sheet.rows for line in lines_of(sheet, row)],
            file=proof.function.file,
            mistakes=[(line, maps(proof, line)) for line in proof.lines if is_remarkable(line)],
        )  # fmt: skip
        return framed(Markup(body), str(self))


def lines_of(sheet: Sheet, row: SheetRow) -> Iterator[dict[str, Any]]:
    """Yield the lines of the table for a forward line: one for each gradient."""
    iteration = f"  # {row.step.iteration}" if row.step and row.step.iteration else ""
    forward = {"number": row.line, "forward": code(row.text), "iteration": iteration}
    empty = {"back": "", "backward": "", "shape": "", "class": "quiet"}
    cells = [
        {"back": number, "backward": code(str(text)), "shape": shape, "verdict": str(verdict),
         "class": CLASSES.get(str(getattr(verdict, "style", "")), "quiet")}
        for line in row.backward
        for number, text, shape, *_, verdict in backward_cells(sheet.proofs[0], line)
    ] or [{**empty, "verdict": why_no_backward(sheet, row)}]  # fmt: skip
    for each in cells:
        yield {**forward, **each}
        forward = dict.fromkeys(forward, "")


def code(text: str) -> Markup:
    """Return a line of Python with syntax highlighting."""
    return Markup(highlight(text, {}, {}))


def is_remarkable(line: BackwardLine) -> bool:
    """Return whether something is to be said about a line."""
    return line.status in (*MISTAKES, "warning")


def maps(proof: Proof, line: BackwardLine) -> list[tuple[str, Markup]]:
    """Return the heat maps of the wrong gradients of a line, by name."""
    return [
        (gradient.name, comparison(row.found, row.expected, row.index))
        for gradient in proof.reported(line)
        if (row := gradient.row).found is not None and row.expected is not None
    ]


def study_functions(
    forward: Callable[..., Any], backward: Callable[..., Any],
    args: Sequence[Any] | Mapping[str, Any], seed: int = 0, title: str | None = None,
) -> Study:  # fmt: skip
    """Study two functions at given arguments; see `tg.study`."""
    target = target_of(forward, backward, args, seed)
    return Study(study(replace(target, title=title) if title else target))
