"""The pages of a study: as files in memory, or as a folder that opens from disk."""

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup

from tinygpt_np.study import targets
from tinygpt_np.study.code import colors
from tinygpt_np.study.diagram import WIDTH, Diagram, diagram
from tinygpt_np.study.page import Json
from tinygpt_np.study.source import StudyError
from tinygpt_np.study.trace import Trace

# A page loads them in this order.
SCRIPTS = ("study.js", "heatmap.js", "chart.js", "panel.js", "reveal.js", "bugs.js")


def files(pages: Sequence[Json]) -> dict[str, str]:
    """The texts of all files by name: index.html, a page a target, and what the pages load."""
    names = file_names([each["name"] for each in pages])
    pictures = models() if {*names} & {*targets.NAMES} else []
    found = {
        "index.html": rendered(
            "index.html.jinja", pages=pages, files=names, models=pictures, box_width=WIDTH
        )
    }
    for each in pages:
        found[names[each["name"]]] = rendered(
            "page.html.jinja", page=each, files=names, data=as_script(each, names), scripts=SCRIPTS
        )
    found["study.css"] = asset("study.css") + colors()
    return found | {name: asset(name) for name in SCRIPTS}


def write(folder: Path, pages: Sequence[Json]) -> None:
    """Writes the files to a folder, which must not exist yet or be empty. Raises StudyError."""
    claim(folder)
    for name, text in files(pages).items():
        try:
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StudyError(f"{folder / name} cannot be written: {error.strerror}") from None


def claim(folder: Path) -> None:
    """Makes the folder: if it cannot be made, that turns out before there is work in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise StudyError(f"{folder} cannot be made: {error.strerror}") from None
    if not is_empty:
        raise StudyError(f"{folder} is not empty; name a folder to be made")


def file_names(names: Sequence[str]) -> dict[str, str]:
    """The name of a file for each target, which may be called by a path and by functions."""
    found: dict[str, str] = {}
    # Some disks do not tell apart a and A.
    taken = {"index.html"}
    for name in names:
        stem = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.") or "page"
        numbers = ("", *(f"-{number}" for number in range(2, len(names) + 3)))
        file = next(f for n in numbers if (f := f"{stem}{n}.html").lower() not in taken)
        taken.add(file.lower())
        found[name] = file
    return found


def as_script(each: Json, names: dict[str, str]) -> Markup:
    """What the scripts of a page read, as JSON that cannot end the element it stands in."""
    text = json.dumps({**each, "files": names}, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def models() -> list[tuple[str, str, Diagram]]:
    """The name, the title and the picture of each model that has layers."""
    found: list[tuple[str, str, Diagram]] = []
    for name in ("gpt", "block"):
        target = targets.named(name)
        trace = Trace(target.forward, target.module, target.args)
        found.append((name, target.title, diagram(trace)))
    return found


def asset(name: str) -> str:
    folder = resources.files("tinygpt_np.study") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def rendered(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tinygpt_np.study", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    cast(Any, made.filters).update(figure=figure)
    return made


def figure(value: float) -> str:
    """A number as it is read in a sentence: 0, 3.9e-16, 0.5."""
    return f"{value:.2g}"
