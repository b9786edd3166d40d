"""Write the HTML pages of a study into a folder; they open from disk."""

import contextlib
import json
import re
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import jinja2
from markupsafe import Markup
from markupsafe import escape as escape_html
from rich.console import Console
from rich.markup import escape

from tinygpt_np import ops
from tinygpt_np.gradcheck.progress import Announce, progress, quiet
from tinygpt_np.gradcheck.workers import results
from tinygpt_np.model import language_model
from tinygpt_np.study.proof.sheet import study
from tinygpt_np.study.render.diagram import WIDTH, Diagram, diagram
from tinygpt_np.study.render.highlight import style_sheet
from tinygpt_np.study.render.page import Json, page_data
from tinygpt_np.study.render.questions import questions
from tinygpt_np.study.source import targets
from tinygpt_np.study.source.parse import StudyError, find_function
from tinygpt_np.study.source.targets import Target, find_target
from tinygpt_np.study.source.trace import Trace

# A page loads the scripts in this order.
SCRIPTS = ("study.js", "heatmap.js", "chart.js", "panel.js", "reveal.js", "questions.js")


def write_site(
    chosen: Sequence[Target],
    folder: Path,
    described: str | None,
    console: Console,
    solved: Collection[str] = (),
) -> bool:
    """Write the pages into a new folder; return whether all gradients are right.

    solved: the targets whose backward the reader has written as an exercise; pages mark them.
    """
    is_new = not folder.exists()
    make_folder(folder)
    try:
        pages = make_pages(chosen, described)
        pages = [{**page, "solved": page["name"] in solved} for page in pages]
        write_files(folder, pages)
    except BaseException:
        if is_new:  # Leave no empty folder behind.
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    names = [target.name for target in chosen]
    first = file_names(names)[names[0]] if len(names) == 1 else "index.html"
    console.print(f"written  {escape(str(folder / first))}", soft_wrap=True)
    return all(page["ok"] for page in pages)


def make_pages(chosen: Sequence[Target], described: str | None) -> list[Json]:
    """Return the data of the pages, computed in as many processes as there are cores."""
    # Targets contain functions, which cannot be pickled, so workers get the names.
    tasks, pages = [(target.name, described, target.seed) for target in chosen], list[Json]()
    with progress("studying") as announce:
        if len(tasks) == 1:
            return [make_page(tasks[0], announce)]
        # The models are last and take longest, so start with them.
        with contextlib.closing(results(make_page, tasks[::-1])) as found:
            for page in found:
                pages.append(page)
                announce(page["name"], len(pages), len(tasks))
    return pages[::-1]


def make_page(task: tuple[str, str | None, int], announce: Announce = quiet) -> Json:
    """Return the data of one page; that of an operation asks about bugs."""
    name, described, seed = task
    sheet = study(find_target(name, described, seed), announce)
    return page_data(sheet, questions(sheet.truth) if name in ops.__all__ else [])


def render_files(pages: Sequence[Json]) -> dict[str, str]:
    """Return the contents of all files by name: the index, the pages, the style and the scripts."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("tinygpt_np.study.render", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # A number with two digits: 0, 3.9e-16, 0.5.
    cast(Any, templates.filters).update(figure="{:.2g}".format, coded=coded)
    names = file_names([each["name"] for each in pages])
    models = diagrams() if {*names} & {*targets.NAMES} else []
    index, page = map(templates.get_template, ("index.html.jinja", "page.html.jinja"))
    found = {"index.html": index.render(pages=pages, files=names, models=models, box_width=WIDTH)}
    for each in pages:
        data = as_script(each, names)
        text = page.render(page=each, pages=pages, files=names, data=data, scripts=SCRIPTS)
        found[names[each["name"]]] = text
    folder = resources.files("tinygpt_np.study.render") / "templates"
    assets = {name: (folder / name).read_text(encoding="utf-8") for name in ("study.css", *SCRIPTS)}
    return found | assets | {"study.css": assets["study.css"] + style_sheet()}


def diagrams() -> list[tuple[Target, Diagram]]:
    """Return the diagrams of the GPT with its loss, of a block and of attention."""
    found = [targets.named_target(name) for name in ("gpt", "block", "attention")]
    traces = [[Trace(each.forward, each.module, each.args)] for each in found]
    file = language_model.__file__
    loss = find_function(Path(file).read_text(encoding="utf-8"), "LanguageModel.loss", file)
    args = {"self": found[0].args["self"], "tokens": (tokens := found[0].args["tokens"])}
    traces[0].append(Trace(loss, dict(vars(language_model)), {**args, "targets": tokens}))
    return [(each, diagram(ran, each.wrt)) for each, ran in zip(found, traces, strict=True)]


def write_files(folder: Path, pages: Sequence[Json]) -> None:
    """Write all files into a folder that does not exist yet or is empty. Raises StudyError."""
    make_folder(folder)
    for name, text in render_files(pages).items():
        try:
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise StudyError(f"{folder / name} cannot be written: {error.strerror}") from None


def make_folder(folder: Path) -> None:
    """Make the folder, before any work is done. Raises StudyError if it is not empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise StudyError(f"{folder} cannot be created: {error.strerror}") from None
    if not is_empty:
        raise StudyError(f"{folder} is not empty; choose a new folder")


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Return a file name for each target, whose own name may contain a path and functions."""
    found: dict[str, str] = {}
    # Some file systems do not distinguish a and A.
    taken = {"index.html"}
    for name in names:
        stem = re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.") or "page"
        numbers = ("", *(f"-{number}" for number in range(2, len(names) + 3)))
        file = next(f for n in numbers if (f := f"{stem}{n}.html").lower() not in taken)
        taken.add(file.lower())
        found[name] = file
    return found


def coded(text: str) -> Markup:
    """Return a text as HTML, with <code> for what is in backticks."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape_html(text))))


def as_script(page: Json, names: dict[str, str]) -> Markup:
    """Return the data for the scripts of a page as JSON that cannot close its script element."""
    text = json.dumps({**page, "files": names}, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
