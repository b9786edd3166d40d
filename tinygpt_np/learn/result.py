"""The verdict on a learner's function, as a notebook shows it and as text."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tinygpt_np.gradcheck.notebook import comparison, framed, templates
from tinygpt_np.gradcheck.report import plain_text
from tinygpt_np.learn.cells import blocks
from tinygpt_np.learn.checks import Hint
from tinygpt_np.learn.course import Exercise, following
from tinygpt_np.learn.hints import STEPS
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.lines import JudgedLine, LineStatus, Mistake
from tinygpt_np.learn.terminal import (
    STATUS,
    draw,
    draw_hint,
    facts_of,
    has_values,
    remedy,
    shortened,
)
from tinygpt_np.study.render.highlight import highlight

# The class of a line by its status; every other status is a mistake.
CLASSES: dict[LineStatus, str] = {"right": "right", "open": "quiet", "untested": "quiet"}


@dataclass(frozen=True, repr=False)
class Result:
    """The result of checking a function.

    verdict: None if nothing could be judged. file: of the function, or its cell, as In[3]. problem:
    why nothing could be judged or recorded, or "".
    """

    verdict: Verdict | None = None
    file: str = ""
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the exercise is solved."""
        return self.verdict is not None and self.verdict.ok

    def __str__(self) -> str:
        """Return what `tinygpt learn check` prints, but for what to do next."""
        parts = [self.problem] if self.problem else []
        if self.verdict is not None:
            parts = [plain_text(draw(self.verdict, what_next(self.verdict))), *parts]
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with heat maps of the first mistake."""
        values = of_verdict(self.verdict) if self.verdict else {}
        body = templates(__name__).get_template("verdict.html.jinja").render(
            verdict=self.verdict, file=self.file, problem=self.problem, **values
        )  # fmt: skip
        return framed(Markup(body), str(self))


@dataclass(frozen=True, repr=False)
class GivenHint:
    """A hint for a line of an exercise."""

    exercise: Exercise
    hint: Hint

    def __str__(self) -> str:
        """Return what `tinygpt learn hint` prints."""
        return plain_text(draw_hint(self.exercise, self.hint))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        hint = self.hint
        parts = [("code", hint.text)] if hint.number == STEPS else blocks(hint.text)
        body = templates(__name__).get_template("hint.html.jinja").render(
            exercise=self.exercise, hint=hint, steps=STEPS, parts=parts
        )  # fmt: skip
        return framed(Markup(body), str(self))


def of_verdict(verdict: Verdict) -> dict[str, Any]:
    """Return what the page shows of a verdict."""
    mistake, is_closed = verdict.mistake, verdict.exercise.kind == "closed"
    return {
        "summary": summary(verdict),
        "lines": [cells(line, is_closed) for line in verdict.lines],
        # The table shows what the line reverses.
        "facts": [f for f in facts_of(mistake, is_closed) if f[0] != "reverses"] if mistake else [],
        "maps": maps(mistake) if mistake else "",
        "printed": shortened(verdict.printed),
        "next_step": what_next(verdict),
    }


def cells(line: JudgedLine, is_closed: bool) -> dict[str, Any]:
    """Return the cells of a line in the table; a line of a closed form reverses none."""
    return {
        "number": line.number,
        "text": code(line.text),
        "reverses": code("" if is_closed else line.reverses),
        "mark": STATUS[line.status][0],
        "class": CLASSES.get(line.status, "wrong"),
    }


def code(text: str) -> Markup:
    """Return a line of Python with syntax highlighting."""
    return Markup(highlight(text, {}, {}))


def maps(mistake: Mistake) -> Markup:
    """Return the heat maps of a wrong gradient, or nothing if it has no values to compare."""
    if not has_values(mistake):
        return Markup()
    return comparison(mistake.found, mistake.expected, mistake.index)


def summary(verdict: Verdict) -> str:
    """Return a verdict in a few words."""
    if verdict.ok:
        return f"✓ solved: the whole function is right in {verdict.calls} calls"
    if verdict.problem:
        return "could not be checked"
    if verdict.mistake is not None:
        return f"{STATUS[verdict.mistake.line.status][0]}, line {verdict.mistake.line.number}"
    return f"{len(verdict.open_lines)} open"


def what_next(verdict: Verdict) -> str:
    """Return the next thing to do, in a notebook."""
    again, hint = "run its cell and this one again", "`tg.learn.hint(backward)` shows a hint"
    if verdict.ok:
        coming = following(verdict.exercise)
        if coming is None:
            return "next: `tinygpt learn` shows what is left of the course"
        return f"next: `tinygpt learn notebook {coming.name}` writes the next exercise"
    if verdict.problem:
        return f"next: change `backward`, {again}"
    if verdict.mistake is not None:
        return f"next: {remedy(verdict.mistake)}, {again}; {hint}"
    if verdict.note:
        return f"next: change `backward`, {again}; {hint}"
    first = verdict.open_lines[0] if verdict.open_lines else None
    return f"next: write line {first.number}, {again}; {hint}" if first else ""
