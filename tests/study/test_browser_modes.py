"""Predict and Break it in a real browser."""

from pathlib import Path

from browsing import Page, open_from_disk, plant, texts

# Predict


def predict(page: Page, address: str, text: str) -> None:
    page.goto(f"{address}/softmax.html")
    page.click("text=Predict")
    page.click("#next-line")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_predict_hides_the_lines_of_the_backward(page: Page, server: str) -> None:
    page.goto(f"{server}/softmax.html")
    page.click("text=Predict")
    assert page.locator("[id='backward_steps:43'] > code").is_hidden()
    assert page.locator("[id='backward_steps:36'] > code").is_visible()


def test_a_right_line_is_shown_and_the_next_is_asked_for(page: Page, server: str) -> None:
    predict(page, server, "dprobs / total")
    page.wait_for_selector("[id='backward_steps:38'] .guessed")
    assert page.locator("[id='backward_steps:38'] > code").is_visible()
    assert page.evaluate("document.activeElement.id") == "guess-backward_steps:39"
    assert page.inner_text("#progress") == "1 of 6 lines written"


def test_a_line_may_be_written_otherwise_and_whole(page: Page, server: str) -> None:
    predict(page, server, "dexps = 1 / total * dprobs")
    said = page.inner_text("[id='backward_steps:38'] .guessed")
    assert said.endswith("as dexps = 1 / total * dprobs")


def test_a_wrong_line_says_what_is_wrong(page: Page, server: str) -> None:
    predict(page, server, "2 * dprobs / total")
    page.wait_for_selector("[id='backward_steps:38'] .says.wrong")
    assert "off by 1 of its norm" in page.inner_text("[id='backward_steps:38'] .says")
    assert page.locator("[id='backward_steps:38'] > code").is_hidden()


def test_a_line_that_is_refused_says_why(page: Page, server: str) -> None:
    predict(page, server, "open('x')")
    page.wait_for_selector("[id='backward_steps:38'] .says.odd")
    assert page.inner_text("[id='backward_steps:38'] .says").startswith("!")


def test_a_line_that_was_shown_does_not_count(page: Page, server: str) -> None:
    page.goto(f"{server}/softmax.html")
    page.click("text=Predict")
    page.click("[id='backward_steps:38'] .show")
    assert page.inner_text("#progress") == "0 of 6 lines written, 1 shown"


def test_from_disk_predict_tells_how_to_serve_the_page(page: Page, folder: Path) -> None:
    open_from_disk(page, folder)
    page.click("text=Predict")
    assert page.is_visible("#disk")
    assert page.inner_text("#disk code") == "tinygpt study softmax --serve"
    assert page.locator(".guess input").count() == 0


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
    assert texts(page, "#modes label") == ["Read", "Predict"]
