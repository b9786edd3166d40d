"""Reading the pages in a real browser: by pointer, by keyboard, on a phone, in light and dark."""

from pathlib import Path

import pytest
from browsing import Page, focused, open_from_disk, plant, texts

# How light text stands on what is behind it, for the text of every element that is seen.
CONTRASTS = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return [255, 255, 255, 255];
  };
  const worst = {ratio: 21};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !element.getClientRects().length || element.closest("svg, script")) continue;
    const [a, b] = [rgba(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) Object.assign(worst, {ratio, text: element.textContent.slice(0, 40)});
  }
  return worst;
}"""
at_width = pytest.mark.parametrize(
    "page", [{"viewport": {"width": 360, "height": 740}}], indirect=True
)
both_schemes = pytest.mark.parametrize(
    "page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True
)


# Read


def test_pointing_at_a_name_lights_it_and_its_gradient(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.hover("[data-row='3'] [data-name=exps]")
    assert {*texts(page, "main .lit")} == {"exps"}
    assert {*texts(page, "main .lit-gradient")} == {"dexps"}


def test_pointing_at_a_gradient_lights_its_name(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.hover("[data-name=dexps] >> nth=0")
    assert {*texts(page, "main .lit")} == {"exps"}


def test_pointing_at_a_name_marks_each_line_that_reads_it(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.hover("[data-row='3'] [data-name=exps]")
    numbers = [text.split()[0] for text in texts(page, ".line.reads")]
    assert sorted(numbers) == ["28", "29", "41", "43"]


def test_the_light_goes_out_when_the_pointer_leaves(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.hover("[data-row='3'] [data-name=exps]")
    page.hover("h1")
    assert page.locator(".lit, .lit-gradient, .reads").count() == 0


def test_a_name_opens_its_arrays_its_rules_and_its_verdicts(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("[data-row='3'] [data-name=exps]")
    assert page.inner_text("#panel-title") == "exps"
    assert [text.split(" (")[0] for text in texts(page, "#panel .heatmap figcaption")] == [
        "value", "gradient by hand", "measured", "difference",
    ]  # fmt: skip
    assert texts(page, "#panel h3") == ["How its gradient comes", "Verdict", "Error by step"]
    assert page.locator("#panel .rule .math math").count() == 5
    assert page.locator("#panel .verdict-of").count() == 2


def test_a_verdict_opens_what_it_is_about(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("[id='backward_steps:39'] .badge")
    assert page.inner_text("#panel-title") == "total"


def test_a_cell_tells_its_place_and_its_number_in_each_array(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("[data-row='3'] [data-name=exps]")
    page.hover("#panel .heatmap >> nth=0 >> [data-at='5']")
    said = page.inner_text("#panel .readout")
    assert said.startswith("[0, 0, 5]")
    assert "value 1," in said
    assert "measured -0.2016" in said


def test_the_chart_has_both_curves_and_the_sweet_spot(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("[data-row='3'] [data-name=exps]")
    assert page.locator("#panel .curve").count() == 2
    words = texts(page, "#panel svg.chart text")
    assert {"sweet spot", "truncation", "rounding"} <= {*words}


def test_a_parameter_of_a_model_opens(page: Page, folder: Path) -> None:
    open_from_disk(page, folder, "block")
    page.click("button[data-open='h.0.ln_1.weight']")
    assert page.inner_text("#panel-title") == "h.0.ln_1.weight"


def test_mathematics_is_drawn(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    drawn = (
        "[...document.querySelectorAll('math')].every((m) => m.getBoundingClientRect().width > 4)"
    )
    assert page.evaluate(drawn)


# Keyboard


def tab_to_the_code(page: Page) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if focused(page):
            return
    raise AssertionError("the Tab key never comes to the code")


def test_arrows_go_from_name_to_name(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    tab_to_the_code(page)
    found = [focused(page)]
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
        found.append(focused(page))
    assert found == ["x", "largest", "x", "shifted", "x"]


def test_the_name_with_the_focus_is_lit(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    tab_to_the_code(page)
    assert {*texts(page, "main .lit")} == {"x"}


def test_enter_opens_and_escape_goes_back_to_the_name(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    tab_to_the_code(page)
    page.keyboard.press("Enter")
    assert page.is_visible("#panel")
    page.keyboard.press("Escape")
    assert page.is_hidden("#panel")
    assert focused(page) == "x"


def test_arrows_go_from_number_to_number(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("[data-row='3'] [data-name=exps]")
    page.focus("#panel .tiles >> nth=0")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert page.inner_text("#panel .readout").startswith("[0, 1, 1]")


def test_modes_are_chosen_by_arrows(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.focus("[name=mode][value=read]")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("body", "data-mode") == "reveal"


def test_each_mode_says_what_it_is_and_no_other(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    for mode in ("Reveal", "Break it", "Read"):
        page.click(f"text={mode}")
        shown = [about for about in page.locator(".about").all() if about.is_visible()]
        assert [about.get_attribute("id") for about in shown] == [
            f"about-{mode.lower().split()[0]}"
        ]


# The index


def test_a_box_of_the_diagram_opens_its_operation(page: Page, folder: Path) -> None:
    open_from_disk(page, folder, "index")
    page.click(".diagram a.box >> text=embedding >> nth=0")
    assert page.inner_text("h1") == "embedding"


def test_boxes_are_reached_by_keyboard(page: Page, folder: Path) -> None:
    open_from_disk(page, folder, "index")
    page.focus(".diagram a.box >> nth=0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".sheet")


# Widths and colours


@at_width
@pytest.mark.parametrize("name", ["index", "softmax", "block"])
def test_nothing_is_wider_than_a_phone(page: Page, folder: Path, name: str) -> None:
    open_from_disk(page, folder, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@at_width
def test_on_a_phone_the_backward_stands_below_its_line(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    forward = page.locator("[data-row='3'] td >> nth=0").bounding_box()
    backward = page.locator("[data-row='3'] td >> nth=1").bounding_box()
    assert backward["y"] >= forward["y"] + forward["height"] - 1


@at_width
def test_on_a_phone_the_choice_of_a_bug_stays_in_sight(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    plant(page, "dshifted = dprobs * exps")
    page.click("#next-bug")
    box = page.locator("#next-bug").bounding_box()
    assert 0 <= box["y"] <= 740 - box["height"]


@at_width
def test_on_a_phone_every_mode_keeps_to_the_width(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    for mode in ("Reveal", "Break it", "Read"):
        page.click(f"text={mode}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("[data-row='3'] [data-name=exps]")
    assert page.evaluate("document.getElementById('panel').scrollWidth") <= 360


@both_schemes
def test_all_text_can_be_read(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.emulate_media(reduced_motion="reduce")
    page.hover("[data-row='3'] [data-name=exps]")
    page.click("[data-row='3'] [data-name=exps]")
    found = [page.evaluate(CONTRASTS)]
    page.keyboard.press("Escape")
    for mode in ("Reveal", "Break it"):
        page.click(f"text={mode}")
        found.append(page.evaluate(CONTRASTS))
    page.select_option("#bug", label="dshifted = dprobs * exps")
    found.append(page.evaluate(CONTRASTS))
    worst = min(found, key=lambda each: each["ratio"])
    assert worst["ratio"] >= 4.5, worst
