"""The page of the kernel benchmark."""

import functools
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from climbs import entrant, found, limit, record

from benchmarks import page


class Page(HTMLParser):
    """Notes the words of a page, its tags, its ids, what it loads, and the labels of its bars."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.open, self.loaded = list[str](), list[str](), list[str]()
        self.ids, self.bars = list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "input"):
            self.open.append(tag)
        self.note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(attrs)

    def note(self, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.loaded += [
            value
            for name, value in values.items()
            if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]
        self.ids += [values["id"]] if "id" in values else []
        if values.get("role") == "img":
            self.bars.append(values["aria-label"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@functools.cache
def usual() -> str:
    """The page of a whole run."""
    return page.render(found())


def shown(*tasks: dict[str, Any], **changes: Any) -> str:
    return Page(page.render(found(*tasks, **changes)) if tasks or changes else usual()).text


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    parsed = Page(usual())
    assert parsed.open == []
    assert parsed.loaded == []


def test_no_id_is_given_twice() -> None:
    ids = Page(page.render(found(record(), record(direction="dx"), record(shape="gpt2")))).ids
    assert len(ids) == len(set(ids))


def test_a_page_is_written_to_a_new_file(tmp_path: Path) -> None:
    page.write(found(), tmp_path / "new.html")
    assert (tmp_path / "new.html").read_text(encoding="utf-8") == usual()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "old.html"
    path.write_text("old")
    with pytest.raises(FileExistsError):
        page.write(found(), path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "fact",
    ["CPU Some CPU", "256 bits", "1 and 2, of 2 CPUs (0, 1)", "L1 48 KiB, L2 1.25 MiB", "abc+",
     "0.25 before, 1.75 after", "numpy 2.4.0", "BLAS Some BLAS", "2026-01-02"],
)  # fmt: skip
def test_the_page_says_on_what_it_was_measured(fact: str) -> None:
    assert fact in shown()


def test_what_is_not_installed_has_no_version() -> None:
    assert "torch None" not in shown()


def test_the_page_says_what_peers_are() -> None:
    assert "llmc, a peer compiler gcc 12" in shown(peers={"llmc": {"compiler": "gcc 12"}})


def test_the_page_says_who_was_left_out_and_why() -> None:
    assert "llmc was left out: no <cc>" in shown(left_out={"llmc": "no <cc>"})


def test_the_page_says_when_the_run_was_stopped() -> None:
    assert "The run was stopped" in shown(complete=False)
    assert "The run was stopped" not in shown()


def test_the_page_says_which_task_was_stopped() -> None:
    options = {"threads": [1], "rounds": 9}
    assert "stopped after 6 of 9 rounds" in shown(options=options)
    assert "stopped after" not in shown()


def test_limits_are_shown_with_their_interval() -> None:
    assert "triad, L1, GB/s 10.0 9.00–11.0" in shown()


def test_a_story_is_told_and_its_gains_are_said_to_be_of_another_run() -> None:
    text = shown()
    before, after = text.split("The story.")
    assert before.rstrip().endswith(
        "from benchmarks/ladders/matmul.py. Their gains were measured on an Intel Xeon at 2.80 GHz "
        "(Ice Lake, AVX-512) with two cores, on 2026-11-23, not in this run; the gains of this run "
        "are in the tables below."
    )
    assert "4.00 4.00–4.00" in after  # One of them, which the story does not know.


def test_without_a_story_no_run_is_named_that_it_would_be_of() -> None:
    assert "not in this run" not in shown(stories={})


@pytest.mark.parametrize(
    ("story", "kind", "content"),
    [
        ("One\nparagraph: this.", "paragraph", "One paragraph: this."),
        ("- one\n  thing\n- two", "list", ["one thing", "two"]),
        ("a b: one\n  thing\nc: two", "terms", [("a b", "one thing"), ("c", "two")]),
        ("a b   one\nc     two", "terms", [("a b", "one"), ("c", "two")]),
        ("What follows: this\nis words. And here: too.", "paragraph",
         "What follows: this is words. And here: too."),
        ("    for a in b:\n        c", "lines", "    for a in b:\n        c"),
    ],
)  # fmt: skip
def test_the_blocks_of_a_story(story: str, kind: str, content: Any) -> None:
    assert list(page.blocks(f"First.\n\n{story}\n"))[1:] == [(kind, content)]


def test_an_empty_story_is_no_block() -> None:
    assert list(page.blocks("")) == []


def test_the_page_says_that_there_is_no_control() -> None:
    assert "No control: no verdicts." in shown(record(controls=[]))


def test_the_controls_are_shown() -> None:
    twins = ("tiles against itself 1.00 (1.00–1.00)", "shared ×2 against itself 1.00 (1.00–1.00)")
    assert f"A/A: {'; '.join(twins)}." in shown()


def test_the_limits_beside_a_task_are_shown() -> None:
    task = record()
    for each in task["limits"]:
        each["rate"] *= 1e9
    assert "1 thread: 10 GFLOP/s, 10 GB/s (L1); 2 threads: 10 GFLOP/s, 10 GB/s (L1)" in shown(task)


def test_without_references_there_is_nothing_to_compare_with() -> None:
    assert "to compare with;" not in shown(record(rows=[entrant("shared", 2)]))
    assert "to compare with;" in shown()


def test_it_is_said_whose_a_reference_is() -> None:
    assert "theirs torch The idea of theirs." in shown()


def test_packed_is_shown_where_it_was_asked_for() -> None:
    asked = record(rows=[entrant("shared", 2, packed=0.5)])
    assert page.columns([asked])[-1] == "packed"
    assert page.columns([record()])[-1] == "first ms"


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"wrong": "y[0] is <nan>"}, "WRONG: y[0] is <nan>"),
        ({"able": False}, "too slow"),
        ({"able": False, "offered": False}, "not offered"),
        ({}, "no turn"),
    ],
)
def test_the_page_says_why_there_is_no_time(about: dict[str, Any], words: str) -> None:
    row = entrant("broken", **about, seconds=[None, None, None])
    text = shown(record(rows=[row, entrant("shared", 2)]))
    assert f"The idea of broken. {words} shared" in text


def test_a_bar_tells_the_numbers_when_pointed_at() -> None:
    (label,) = (bar for bar in Page(usual()).bars if bar.startswith("tiles"))
    assert label.splitlines() == [
        "tiles: 1.025e+04 ms (min 1e+04, max 1.05e+04)",
        "turns in 6 of 6 rounds",
        "over the serial rung above: 4.00 (4.00–4.00) at 97%, ▲ faster",
        "7.8e-09 GFLOP/s, 3.9e-09 GB/s",
        "78% (76%–80%) of the limit, compute",
    ]


def test_each_task_that_was_timed_has_a_roofline() -> None:
    text = shown(record(), record(direction="dx"))
    assert "Roofline of matmul forward, cpu" in text
    assert "Roofline of matmul dx, cpu" in text


def test_without_a_round_there_is_a_table_and_no_roofline() -> None:
    rows = [entrant("loops", seconds=[]), entrant("shared", 2, seconds=[])]
    limits: list[dict[str, Any]] = [{**each, "seconds": []} for each in record()["limits"]]
    control = entrant("shared", 2, seconds=[])
    text = shown(record(rows=rows, limits=limits, controls=[control], rounds=0))
    assert "stopped after 0 of 6 rounds" in text
    assert "The idea of loops. no turn" in text
    assert "Roofline" not in text


def test_on_one_thread_there_is_one_column_of_limits() -> None:
    rows, limits = [entrant("loops"), entrant("tiles")], [limit("peak", 1), limit("triad", 1)]
    text = shown(record(rows=rows, limits=limits, controls=[entrant("tiles")]))
    assert "limit 1 thread peak, GFLOP/s" in text


def test_names_are_shown_as_they_are() -> None:
    rows = [entrant("a <b> & c", idea="<i>"), entrant("shared", 2)]
    assert "a <b> & c <i>" in shown(record(rows=rows))
