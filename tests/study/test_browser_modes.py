"""Reveal and Break it in a real browser."""

from pathlib import Path

import pytest
from browsing import Page, open_from_disk, plant, texts

# Reveal

# The lines of softmax's backwards, in the order in which they run.
ORDER = [35, 36, 38, 39, 41, 43, 45, 46, 51, 52, 53, 54]


def open_reveal(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("text=Reveal")


def concealed(page: Page) -> list[int]:
    """The numbers of the lines whose code is hidden, in order."""
    lines = page.locator(".line.back[id]").all()
    hidden = [line for line in lines if line.locator("> code").is_hidden()]
    return sorted(int(line.locator(".number").inner_text()) for line in hidden)


def test_reveal_hides_every_line_of_the_backward_and_no_other(page: Page, folder: Path) -> None:
    open_reveal(page, folder)
    assert concealed(page) == ORDER
    assert all(line.is_visible() for line in page.locator("[data-row] td:first-child code").all())
    assert page.inner_text("#progress") == "0 of 12 lines revealed"


def test_a_hidden_line_shows_its_left_side_and_shape_only(page: Page, folder: Path) -> None:
    open_reveal(page, folder)
    line = page.locator("[id='backward_steps:43']")
    assert " ".join(line.inner_text().split()) == "43 Reveal line 43: dshifted = … (..., V)"
    assert line.locator(".badge").is_hidden()


def test_the_button_reveals_the_lines_in_the_order_in_which_they_run(
    page: Page, folder: Path
) -> None:
    open_reveal(page, folder)
    page.focus("#next-line")
    for count in range(1, len(ORDER) + 1):
        page.keyboard.press("Enter")
        assert concealed(page) == ORDER[count:]
    assert page.inner_text("#progress") == "12 of 12 lines revealed"
    assert page.is_disabled("#next-line")
    assert page.evaluate("document.activeElement.id") == "hide-again"


def test_a_line_is_revealed_by_a_click_and_the_next_gets_the_focus(
    page: Page, folder: Path
) -> None:
    open_reveal(page, folder)
    page.click("[id='backward_steps:41'] .reveal")
    assert concealed(page) == [number for number in ORDER if number != 41]
    assert page.locator("[id='backward_steps:41'] .badge").is_visible()
    assert page.evaluate("document.activeElement.parentElement.id") == "backward_steps:35"


def test_all_lines_can_be_hidden_again(page: Page, folder: Path) -> None:
    open_reveal(page, folder)
    page.click("#next-line")
    page.click("#hide-again")
    assert concealed(page) == ORDER


def test_what_was_revealed_stays_revealed_after_reading(page: Page, folder: Path) -> None:
    open_reveal(page, folder)
    page.click("#next-line")
    page.click("text=Read")
    assert concealed(page) == []
    page.click("text=Reveal")
    assert concealed(page) == ORDER[1:]


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_every_line_is_shown(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    assert concealed(page) == []
    assert page.is_hidden("#modes")


# Break it


def test_a_bug_reddens_its_line_and_those_that_it_spoils(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    plant(page, "dshifted = dprobs * exps")
    said = {f"backward_steps:{n}": text for n, text in {
        43: "✗ wrong, the first", 45: "! because of dshifted", 41: "✓ still right",
    }.items()}  # fmt: skip
    for line, words in said.items():
        assert page.inner_text(f"[id='{line}'] .broken") == words


def test_a_bug_shows_the_line_before_and_after(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    plant(page, "dshifted = dprobs * exps")
    assert texts(page, "[id='backward_steps:43'] del") == ["dshifted = dexps * exps"]
    assert texts(page, "[id='backward_steps:43'] ins") == ["dshifted = dprobs * exps"]


def test_a_bug_says_what_the_check_says(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    plant(page, "dshifted = -(dexps * exps)")
    assert "Likely cause: the sign is wrong" in page.inner_text("#bug-says")


def test_a_change_without_effect_says_why(page: Page, folder: Path) -> None:
    open_from_disk(page, folder, "embedding")
    plant(page, "dweight = -np.zeros(shape, dtype=drows.dtype)")
    assert page.inner_text("#bug-says .says") == "= changes nothing: -0 is 0"


def test_the_next_bug_is_a_key_away(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("text=Break it")
    page.focus("#next-bug")
    page.keyboard.press("Enter")
    assert page.inner_text("#bug-number") == "2 of 63"


def test_reading_again_takes_the_bug_away(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    plant(page, "dshifted = dprobs * exps")
    page.click("text=Read")
    assert page.locator(".broken, .changed").count() == 0


def test_a_model_has_no_bugs_to_plant(page: Page, folder: Path) -> None:
    open_from_disk(page, folder, "block")
    assert texts(page, "#modes label") == ["Read", "Reveal"]
