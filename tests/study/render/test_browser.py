"""Tests of the pages in a real browser: pointer, keyboard, phone, light and dark, and the modes."""

from pathlib import Path

import pytest
from helpers.browser import Page, focused_name, lowest_contrast, open_page, texts

pytestmark = pytest.mark.slow  # Starts a browser.

EXPS = "[data-row='3'] [data-name=exps]"
SCREEN = {"viewport": {"width": 1400, "height": 1000}}
PHONE = {"viewport": {"width": 360, "height": 740}}
SCREENS = [{**SCREEN, "color_scheme": scheme} for scheme in ("light", "dark")]
SCHEMES = [{"color_scheme": "light"}, {"color_scheme": "dark"}]


@pytest.fixture
def softmax(page: Page, folder: Path) -> Page:
    open_page(page, folder)
    return page


# Highlighting and the panel


def test_pointing_at_a_name_highlights_it_its_gradient_and_its_readers(softmax: Page) -> None:
    softmax.hover(EXPS)
    assert {*texts(softmax, "main .lit")} == {"exps"}
    assert {*texts(softmax, "main .lit-gradient")} == {"dexps"}
    numbers = [text.split()[0] for text in texts(softmax, ".line.reads")]
    assert sorted(numbers) == ["28", "29", "41", "43"]
    softmax.hover("h1")
    assert softmax.locator(".lit, .lit-gradient, .reads").count() == 0


def test_a_name_opens_its_arrays_rules_verdicts_and_cells(softmax: Page) -> None:
    softmax.click(EXPS)
    assert softmax.inner_text("#panel-title") == "exps"
    captions = texts(softmax, "#panel .heatmap b")
    assert captions == ["value", "gradient", "expected", "difference"]
    counts = {".rule .math math": 4, ".verdict-of": 2, ".curve": 2}
    assert {each: softmax.locator(f"#panel {each}").count() for each in counts} == counts
    words = texts(softmax, "#panel svg.chart text")
    assert {"sweet spot", "truncation", "rounding"} <= {*words}
    # The second term is folded.
    assert texts(softmax, "#panel .reason > summary") == ["✓ the term of backward_steps, line 41"]
    assert [each.is_visible() for each in softmax.locator("#panel .rule").all()] == [True, False]
    softmax.click("#panel .reason > summary")
    widths = "[...document.querySelectorAll('math')].map((m) => m.getBoundingClientRect().width)"
    assert min(softmax.evaluate(widths)) > 4
    softmax.click("[id='backward_steps:39'] .badge")
    assert softmax.inner_text("#panel-title") == "total"
    # A cell shows its index and its number in each array.
    softmax.click(EXPS)
    softmax.hover("#panel .heatmap >> nth=0 >> [data-index='5']")
    readout = softmax.inner_text("#panel .readout")
    assert readout.startswith("[0, 0, 5]")
    assert "value 1," in readout
    assert "expected -0.2016" in readout
    softmax.focus("#panel .tiles >> nth=0")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        softmax.keyboard.press(key)
    assert softmax.inner_text("#panel .readout").startswith("[0, 1, 7]")


@pytest.mark.parametrize("page", [SCREEN], indirect=True)
def test_the_first_screen_shows_the_whole_softmax_and_the_first_gradient(softmax: Page) -> None:
    lines = softmax.locator(".line").all()
    assert len(lines) == 7 + 9 + 5
    for shown in (*lines, softmax.locator("#panel .rule").first):
        box = shown.bounding_box()
        assert box["y"] + box["height"] <= 1000
        assert box["x"] + box["width"] <= 1400
    assert softmax.inner_text("#panel-title") == "exps"
    assert (
        softmax.evaluate("document.querySelector('main').getBoundingClientRect().right")
        <= (softmax.locator("#panel").bounding_box()["x"])
    )
    # Only then the derivation.
    assert softmax.locator("#derivation").bounding_box()["y"] > 800
    softmax.keyboard.press("Tab")
    assert softmax.evaluate("document.activeElement.href").endswith("index.html")


def test_the_panel_begins_with_the_rule_and_the_verdict_of_the_line(softmax: Page) -> None:
    softmax.click("[id='backward_steps:41'] .badge")
    order = [": ".join(text.split()[:3]) for text in texts(softmax, ".rule, .verdict-of > p")]
    assert order == ["Sum: over: an", "✓: right: to", "Quotient: in: line", "✓: right: to"]
    assert "backward_steps, line 41" in texts(softmax, ".verdict-of > p")[0]
    first = softmax.locator("#panel .rule").first.bounding_box()["y"]
    assert first < softmax.locator("#panel .heatmap").first.bounding_box()["y"]


def test_a_line_of_the_closed_form_shows_the_derivation_instead_of_a_rule(softmax: Page) -> None:
    softmax.click("[id='backward:53'] .badge")
    derived = texts(softmax, "#panel .rule")[0]
    assert derived.startswith("This line reverses several lines at once")
    assert "every row of" in derived
    assert "Difference" not in derived
    assert "backward, line 53" in texts(softmax, ".verdict-of > p")[0]


def test_a_difference_of_rounding_size_is_not_painted(softmax: Page) -> None:
    softmax.click(EXPS)
    assert texts(softmax, "#panel .heatmap p") == ["equal up to rounding"]
    assert softmax.locator("#panel .heatmap:has-text('difference') rect").count() == 0


def test_masks_and_arrays_with_four_axes_have_readable_legends(page: Page, folder: Path) -> None:
    open_page(page, folder, "attention")
    page.click("[data-name='visible'] >> nth=0")
    assert texts(page, "#panel .legend") == ["FalseTrue"]
    assert page.inner_text("#panel header").split("\n")[1:2] == ["(T 3, T 3), line 75"]
    page.hover("#panel [data-index='1']")
    assert page.inner_text("#panel .readout") == "[0, 1] value False"
    page.click("[data-name='products'] >> nth=0")
    slices = texts(page, "#panel .heatmap >> nth=0 >> small")
    assert slices == [f"B {b}, H {h}" for b in range(2) for h in range(4)]
    lefts, tops = (
        [each.bounding_box()[side] for each in page.locator("#panel .tile").all()[:8]]
        for side in ("x", "y")
    )
    assert len({*lefts}) == 4
    assert tops[:4] == [tops[0]] * 4 != tops[4:]


@pytest.mark.parametrize("page", SCREENS, indirect=True)
def test_a_page_with_a_missing_line_opens_at_its_place_and_rule(page: Page, folder: Path) -> None:
    open_page(page, folder, "own")
    line = page.locator("[data-status='missing']")
    assert line.locator(".number").inner_text() == "+"
    assert line.evaluate("line => line.closest('tr').dataset.row") == "3"
    assert page.inner_text("#panel-title") == "z"
    first = texts(page, "#panel .reason >> nth=0")[0]
    assert first.startswith("✗ dz lacks the part through line")
    assert "Product in line" in first
    assert texts(page, "#panel .heatmap p") == []  # The difference is painted.
    page.emulate_media(reduced_motion="reduce")
    worst = lowest_contrast(page)
    assert worst["ratio"] >= 4.5, worst


def test_a_model_has_no_planted_bugs_and_its_parameters_open(page: Page, folder: Path) -> None:
    open_page(page, folder, "block")
    assert texts(page, "#modes label") == ["Read", "Reveal"]
    page.click("button[data-open='h.0.ln_1.weight']")
    assert page.inner_text("#panel-title") == "h.0.ln_1.weight"


# Keyboard


def test_the_keyboard_moves_between_names_and_opens_and_closes_the_panel(softmax: Page) -> None:
    for _ in range(20):
        softmax.keyboard.press("Tab")
        if focused_name(softmax):
            break
    found = [focused_name(softmax)]
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "ArrowLeft"):
        softmax.keyboard.press(key)
        found.append(focused_name(softmax))
    assert found == ["x", "largest", "x", "shifted", "x"]
    softmax.keyboard.press("Enter")
    assert softmax.is_visible("#panel")
    softmax.keyboard.press("Escape")
    assert softmax.is_hidden("#panel")
    assert focused_name(softmax) == "x"


def test_each_mode_shows_its_own_description_only(softmax: Page) -> None:
    for mode in ("Reveal", "Break it", "Read"):
        softmax.click(f"text={mode}")
        shown = [about for about in softmax.locator(".about").all() if about.is_visible()]
        names = [about.get_attribute("id") for about in shown]
        assert names == [f"about-{mode.lower().split()[0]}"]
    softmax.focus("[name=mode][value=read]")
    softmax.keyboard.press("ArrowRight")
    assert softmax.get_attribute("body", "data-mode") == "reveal"


def test_a_box_of_the_diagram_links_to_its_operation(page: Page, folder: Path) -> None:
    open_page(page, folder, "index")
    page.focus(".diagram a.box:has-text('embedding') >> nth=0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sheet")
    assert page.inner_text("h1") == "embedding"


# Widths and colours


def width_of(page: Page, element: str = "documentElement") -> int:
    return page.evaluate(f"document.{element}.scrollWidth")


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_on_a_phone_pages_fit_in_every_mode_and_bugs_can_be_chosen(
    page: Page, folder: Path
) -> None:
    for name in ("index", "block", "softmax"):
        open_page(page, folder, name)
        assert width_of(page) <= 360
    for mode in ("Reveal", "Break it", "Read"):
        page.click(f"text={mode}")
        assert width_of(page) <= 360
    page.click(EXPS)
    assert width_of(page, "getElementById('panel')") <= 360
    page.keyboard.press("Escape")
    # The backward is below its line.
    forward, backward = (
        page.locator(f"[data-row='3'] td >> nth={column}").bounding_box() for column in (0, 1)
    )
    assert backward["y"] >= forward["y"] + forward["height"] - 1
    page.click("text=Break it")
    page.click(".choice >> nth=0")
    assert width_of(page) <= 360


@pytest.mark.parametrize("page", SCHEMES, indirect=True)
def test_all_text_has_enough_contrast(softmax: Page) -> None:
    softmax.emulate_media(reduced_motion="reduce")
    softmax.hover(EXPS)
    softmax.click(EXPS)
    found = [lowest_contrast(softmax)]
    softmax.keyboard.press("Escape")
    for mode in ("Reveal", "Break it"):
        softmax.click(f"text={mode}")
        found.append(lowest_contrast(softmax))
    for line in softmax.evaluate("study.questions.slice(0, 2).map((each) => each.id)"):
        answer(softmax, line)
        found.append(lowest_contrast(softmax))
        softmax.click("#next")
    worst = min(found, key=lambda each: each["ratio"])
    assert worst["ratio"] >= 4.5, worst


# Reveal

# The lines of the backwards, in the order in which they run.
ORDER = [35, 36, 38, 39, 41, 43, 45, 46, 51, 52, 53, 54]


def concealed(page: Page) -> list[int]:
    """Return the numbers of the lines whose code is hidden, in order."""
    lines = page.locator(".line.back[id]").all()
    hidden = [line for line in lines if line.locator("> code").is_hidden()]
    return sorted(int(line.locator(".number").inner_text()) for line in hidden)


def test_reveal_hides_the_backward_and_its_button_shows_the_lines_as_they_run(
    softmax: Page,
) -> None:
    softmax.click("text=Reveal")
    assert concealed(softmax) == ORDER
    assert all(
        line.is_visible() for line in softmax.locator("[data-row] td:first-child code").all()
    )
    assert softmax.inner_text("#progress") == "0 of 12 lines revealed"
    line = softmax.locator("[id='backward_steps:43']")
    assert " ".join(line.inner_text().split()) == "43 Reveal line 43: dshifted = … (..., V)"
    assert line.locator(".badge").is_hidden()
    softmax.focus("#next-line")
    for count in range(1, len(ORDER) + 1):
        softmax.keyboard.press("Enter")
        assert concealed(softmax) == ORDER[count:]
    assert softmax.inner_text("#progress") == "12 of 12 lines revealed"
    assert softmax.is_disabled("#next-line")
    assert softmax.evaluate("document.activeElement.id") == "hide-again"


def test_revealed_lines_stay_revealed_until_they_are_hidden_again(softmax: Page) -> None:
    softmax.click("text=Reveal")
    softmax.click("[id='backward_steps:41'] .reveal")
    others = [number for number in ORDER if number != 41]
    assert concealed(softmax) == others
    assert softmax.locator("[id='backward_steps:41'] .badge").is_visible()
    assert softmax.evaluate("document.activeElement.parentElement.id") == "backward_steps:35"
    softmax.click("text=Read")
    assert concealed(softmax) == []
    softmax.click("text=Reveal")
    assert concealed(softmax) == others
    softmax.click("#hide-again")
    assert concealed(softmax) == ORDER


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_every_line_is_shown(softmax: Page) -> None:
    assert concealed(softmax) == []
    assert softmax.is_hidden("#modes")


# Break it


def lines_by_status(page: Page, question: int) -> dict[str, list[str]]:
    """Return the ids of the lines of a question: the wrong one, those after it, the others."""
    asked = page.evaluate(f"study.questions[{question}]")
    ids = page.evaluate("[...document.querySelectorAll('.line.asked')].map((line) => line.id)")
    other = [each for each in ids if each != asked["id"] and each not in asked["lines"]]
    return {"wrong": [asked["id"]], "inherited": [*asked["lines"]], "right": other}


def answer(page: Page, line: str) -> None:
    page.click(f"[id='{line}'] .choice")


def test_a_question_shows_the_symptoms_and_the_broken_line_but_not_which_it_is(
    softmax: Page,
) -> None:
    softmax.click("text=Break it")
    asked = softmax.evaluate("study.questions[0]")
    text = softmax.inner_text("#question")
    assert "Question 1 of 10" in text
    assert f"dx ✗ {asked['symptoms'][0]['problem']}" in " ".join(text.split())
    assert asked["cause"] not in text
    shown = " ".join(texts(softmax, ".choice code"))
    assert asked["after"] in shown
    assert asked["before"] not in shown.replace(asked["after"], "")
    assert not any(badge.is_visible() for badge in softmax.locator(".badge").all())
    # Nor does its look: all lines have a shape, except those that set none and the return.
    without = softmax.locator(".choice:not(:has(.shape))").all_text_contents()
    assert [text.split(": ")[1] for text in without] == ["probs, _ = saved", "return dx"]


def test_an_answer_is_judged_and_explained_and_the_line_repaired(softmax: Page) -> None:
    softmax.click("text=Break it")
    asked = softmax.evaluate("study.questions")
    answer(softmax, asked[0]["id"])
    number = asked[0]["id"].split(":")[1]
    assert f"✓ Right, it is line {number}." in softmax.inner_text("#question .message")
    assert f"likely cause: {asked[0]['cause']}." in softmax.inner_text("#question .message")
    line = f"[id='{asked[0]['id']}']"
    assert texts(softmax, f"{line} del") == [asked[0]["after"]]
    assert texts(softmax, f"{line} ins") == [asked[0]["before"]]
    assert softmax.inner_text("#score") == "1 of 1 right"
    softmax.click("#next")
    index = next(i for i, each in enumerate(asked) if each["function"] == "backward_steps")
    while softmax.inner_text("#question-number") != f"Question {index + 1} of 10":
        softmax.click("#next-question")
    ids = lines_by_status(softmax, index)
    answer(softmax, ids["inherited"][0])
    explained = softmax.inner_text("#question .message")
    number = ids["inherited"][0].split(":")[1]
    assert f"✗ Line {number} is wrong, but only because of" in explained
    assert f"The wrong line is line {ids['wrong'][0].split(':')[1]}." in explained
    assert softmax.inner_text("#score") == "1 of 2 right"
    softmax.click("text=Read")
    assert softmax.locator(".choice, .broken, .changed").count() == 0


def test_questions_are_answered_with_the_keyboard_to_the_end_and_again(softmax: Page) -> None:
    softmax.click("text=Break it")
    right = softmax.evaluate("study.questions.map((question) => question.id)")
    for number, line in enumerate(right, 1):
        assert softmax.inner_text("#question-number") == f"Question {number} of 10"
        softmax.focus(f"[id='{line}'] .choice")
        softmax.keyboard.press("Enter")
        assert softmax.evaluate("document.activeElement.id") == "next"
        softmax.keyboard.press("Enter")
    assert softmax.inner_text("#score") == ""
    assert softmax.inner_text("#question-number") == "Question 1 of 10"
    focused: list[str] = []
    for _ in range(5):  # From the question to its button, the code, and the first line to choose.
        softmax.keyboard.press("Tab")
        focused.append(softmax.evaluate("document.activeElement.className"))
    assert "choice" in focused


def test_a_line_that_is_right_is_a_wrong_answer(softmax: Page) -> None:
    softmax.click("text=Break it")
    line = lines_by_status(softmax, 0)["right"][0]
    answer(softmax, line)
    assert "does what it should. The wrong line is" in softmax.inner_text("#question .message")
    assert softmax.inner_text(f"[id='{line}'] .broken").startswith("your answer")
