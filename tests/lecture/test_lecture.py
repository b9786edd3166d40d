"""The chapters: their list, what each prints, and the numbers by which they check themselves.

Training is shortened here, but not where the claim about its end needs all of it.
"""

import importlib
import io
import re
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.optional import needs

from tinygpt_np import lecture, ops
from tinygpt_np.config import PRESETS
from tinygpt_np.lecture import chapter_04_bigram, workbench
from tinygpt_np.text.tokenizers import GPT2Tokenizer, TokenizerError

CHAPTERS = lecture.chapters()
OPTIONAL = ("tiktoken", "tiktoken.load", "sentencepiece")
# Steps: enough to run every line; enough for the chapters' claims about their losses to hold.
SHORT, MIDDLING = 8, 400
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=[c.name for c in CHAPTERS])


@cache
def printed(name: str, steps: int | None = SHORT) -> str:
    """What a chapter prints, trained for so many steps; None leaves its own number."""
    chapter = lecture.find(name)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        for package in OPTIONAL:
            patch.setitem(sys.modules, package, None)
        for module in (workbench, importlib.import_module(chapter.module)):
            if steps is not None and hasattr(module, "STEPS"):
                patch.setattr(module, "STEPS", steps)
        lecture.run(chapter)
    return out.getvalue()


def numbers(pattern: str, text: str) -> list[float]:
    """The numbers that stand where the pattern has an @. There must be one at least."""
    found = re.findall(pattern.replace("@", r"(-?[\d.,]+(?:e[+-]\d+)?)"), text)
    assert found, f"{pattern!r} is not in\n{text}"
    return [float(number.replace(",", "").rstrip(".")) for number in found]


def number(pattern: str, text: str) -> float:
    (found,) = numbers(pattern, text)
    return found


def test_the_chapters_are_numbered_from_1_to_19() -> None:
    assert [chapter.number for chapter in CHAPTERS] == list(range(1, 20))


def test_the_timestamps_increase() -> None:
    *stamps, last = [chapter.timestamp for chapter in CHAPTERS]
    assert last == "afterwards"  # The adder is not in the lecture.
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", stamp) for stamp in stamps)
    assert stamps == sorted(set(stamps))


def test_the_names_are_distinct() -> None:
    assert len({chapter.name for chapter in CHAPTERS}) == len(CHAPTERS)


@every_chapter
def test_a_chapter_is_found_by_name_and_by_number(chapter: lecture.Chapter) -> None:
    assert lecture.find(chapter.name) == lecture.find(str(chapter.number)) == chapter


def test_bigram_is_chapter_4() -> None:
    assert lecture.find("bigram").number == 4


def test_an_unknown_chapter_is_an_error_that_lists_them_all() -> None:
    with pytest.raises(ValueError, match="trigram") as error:
        lecture.find("trigram")
    assert all(f"{chapter.number} {chapter.name}" in str(error.value) for chapter in CHAPTERS)


@every_chapter
def test_a_chapter_prints_finite_numbers(chapter: lecture.Chapter) -> None:
    text = printed(chapter.name)
    assert len(text.splitlines()) > 5
    assert not re.search(r"\b(nan|inf)\b", text)


@every_chapter
def test_no_line_of_a_chapter_is_wider_than_100_columns(chapter: lecture.Chapter) -> None:
    # Sampled text breaks its lines where it likes.
    lines = [line for line in printed(chapter.name).splitlines() if re.search(r"\d|[░▒▓█]", line)]
    assert max(map(len, lines)) <= 100


@every_chapter
def test_no_line_of_explanation_is_printed_twice(chapter: lecture.Chapter) -> None:
    lines = [line for line in printed(chapter.name).splitlines() if line.count(" ") > 8]
    prose = [line for line in lines if re.fullmatch(r"[A-Z][a-z].*[.,:]", line)]
    starts = [line[:40] for line in prose]
    assert len(starts) == len(set(starts))


@pytest.mark.parametrize("name", [chapter.name for chapter in CHAPTERS[10:17]])
def test_gradients_by_hand_equal_the_complex_step(name: str) -> None:
    assert number("complex step: @ ", printed(name)) < 1e-12


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("training", "largest difference from the library: @"),
        ("softmax", "largest difference from ops.softmax @"),
        ("head", r"against ops.attention: +@"),
        ("layer-norm", r"against ops.layer_norm: +@"),
    ],
)
def test_gradients_by_hand_equal_the_library(name: str, pattern: str) -> None:
    assert number(pattern, printed(name)) < 1e-12


@pytest.mark.parametrize("name", ["matmul", "softmax"])
def test_the_versions_of_averaging_agree(name: str) -> None:
    assert number("largest difference (?:over all 4 texts: )?@", printed(name)) < 1e-12


def test_the_gradient_check_sees_a_wrong_gradient(capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module("tinygpt_np.lecture.chapter_11_cleanup")
    model = module.Factored(workbench.text_and_splits()[0].vocab_size, workbench.N_EMBD)
    right = model.backward

    def wrong(dlogits: np.ndarray, saved: Any) -> dict[str, np.ndarray]:
        grads = right(dlogits, saved)
        return {**grads, "head": 1.0005 * grads["head"]}

    model.backward = wrong
    workbench.check_gradient(model)
    assert number("complex step: @ ", capsys.readouterr().out) > 1e-6


def test_the_gradient_check_leaves_the_model_as_it_was() -> None:
    module = importlib.import_module("tinygpt_np.lecture.chapter_11_cleanup")
    model = module.Factored(5, 3)
    before = {name: param.copy() for name, param in model.params.items()}
    with redirect_stdout(io.StringIO()):
        workbench.check_gradient(model)
    assert all(np.array_equal(model.params[name], before[name]) for name in before)


def test_the_nine_tokens_hold_eight_examples() -> None:
    assert len(re.findall(r"after '.*' +comes '.'", printed("batches"))) == 8


def test_random_opinions_cost_half_a_nat() -> None:
    text = printed("bigram")
    uniform = number("uniform guess, ln V +@", text)
    assert abs(uniform - np.log(63)) < 1e-4
    assert abs(number("tables: @ on average", text) - uniform - 0.49) < 0.02
    assert abs(number("without preferences: @", text) - uniform) < 0.01


def test_the_untrained_bigram_stands_next_to_the_videos() -> None:
    text = printed("bigram")
    assert number(r"p\(target\) +[\d.]+ +@", text) == 4.8786
    assert number(r"ln V +[\d.]+ +@", text) == pytest.approx(np.log(65), abs=1e-4)
    # The losses of random tables on this batch, in standard deviations from the expected loss.
    rng = np.random.default_rng(0)
    targets, x = rng.integers(65, size=32), rng.integers(65, size=32)
    losses = [
        ops.cross_entropy.forward(rng.standard_normal((65, 65))[x], targets)[0] for _ in range(1000)
    ]
    expected = (4.8786 - np.mean(losses)) / np.std(losses)
    assert abs(number(r"\(here\) and\s+@ above it \(video\)", text) - expected) < 0.4


def test_a_difference_is_put_into_the_right_word() -> None:
    assert [chapter_04_bigram.side(x) for x in (-2.0, 1.2)] == ["below", "above"]


# Numbers that the video shows: losses as it says them, and those of its notebook.
VIDEO = {
    "reading": ["1,115,394", "65"],
    "tokenization": ["46 47 47 1 58 46 43 56 43", "71 4178 612", "1,003,854", "111,540"],
    "batches": ["[18, 47, 56, 57, 58, 1, 15, 47, 58]", "[24, 43, 58, 5, 57, 1, 46, 43]"],
    "bigram": ["4.8786", "4.1744"],
    "training": ["about 2.5"],
    "script": ["4.7305", "4.7241", "2.4738", "2.4911"],
    "averaging": ["0.1808 -0.0700"],
    "trick": [" 4.67  5.33]"],
    "head": ["17.47 and 1.09", "2.40"],
    "multi-head": ["2.28"],
    "feed-forward": ["2.24"],
    "residual": ["2.08"],
    "layer-norm": ["2.06"],
    "gpt": ["1.48"],
}


@pytest.mark.parametrize("name", VIDEO)
def test_a_chapter_names_the_numbers_of_the_video(name: str) -> None:
    chapter = lecture.find(name)
    text = " ".join([*chapter.about, printed(name)])
    for part in VIDEO[name]:
        assert part in text.split("video", 1)[1], part


def test_the_big_run_takes_as_long_as_the_readme_says() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    seconds = number("steps of about @ s each", printed("gpt"))
    hours = number("so about @ hours", printed("gpt"))
    assert f"takes about {seconds:.0f} seconds" in readme
    assert hours == round(PRESETS["lecture"].max_iters * seconds / 3600) == 10
    assert "makes some ten\nhours for all" in readme


def test_training_the_bigram_ends_near_two_and_a_half() -> None:
    assert 2.45 < number("validation loss after @", printed("training", None)) < 2.55


def test_no_bigram_beats_counting() -> None:
    text = printed("training", None)
    counted = number("counting the pairs of the training text @:", text)
    assert counted < number("validation loss after @", text) < counted + 0.02


def test_the_script_ends_near_two_and_a_half_on_both_splits() -> None:
    last = re.findall("^step .*", printed("script", None), re.M)[-1]
    assert all(2.4 < loss < 2.55 for loss in numbers("loss @", last))


def test_the_mean_of_the_past_does_not_look_ahead() -> None:
    assert "rows 0 to 4 stay" in printed("averaging")


def test_scaling_keeps_the_variance_of_the_products_at_one() -> None:
    rows = [line.split() for line in re.findall(r"^ +(?:4|16|64)  .*", printed("head"), re.M)]
    assert [int(row[0]) for row in rows] == [4, 16, 64]
    for row in rows:
        assert abs(float(row[1]) / int(row[0]) - 1) < 0.05
        assert abs(float(row[2]) - 1) < 0.05


def test_four_heads_do_better_than_one() -> None:
    one, four = numbers("after @", printed("multi-head", MIDDLING))
    assert four < one - 0.05


def test_the_bend_of_the_feed_forward_layer_lowers_the_loss() -> None:
    straight, bent = numbers("after @", printed("feed-forward", None))
    assert bent < straight - 0.03


def test_residual_connections_lower_the_loss() -> None:
    bare, residual = numbers("after @", printed("residual", MIDDLING))
    assert residual < bare - 0.2


def test_without_residual_connections_the_gradient_dies_with_depth() -> None:
    text = printed("residual")
    bare, residual = (numbers("@", line) for line in re.findall(r"^  with.*", text, re.M))
    assert bare[0] > 1e3 * bare[2] > 1e6 * bare[3]
    assert min(residual) > max(residual) / 2


def test_layer_norm_forgives_weights_that_start_too_large() -> None:
    _, bare, normed = numbers("after @", printed("layer-norm", 60))
    assert normed < 10 < 100 < bare


def test_dropout_keeps_the_mean() -> None:
    assert abs(number("the mean stays: @", printed("gpt")) - 1) < 0.02


def test_a_heat_map_shades_what_a_token_sees_and_leaves_the_future_blank() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.02, 0.1, 0.2]])
    lines = workbench.heat_maps({"head": probs}, "a b").splitlines()
    assert lines[:5] == ["  head", "  a _ b", "a ██", "_ ▓▓▓▓", "b ··░░▒▒"]


@pytest.mark.parametrize("package", ["tiktoken", "sentencepiece"])
def test_a_missing_tokenizer_is_one_line_that_says_how_to_get_it(package: str) -> None:
    message = f"this tokenizer needs {package}: pip install 'tinygpt-np[tokenizers]'"
    assert message in printed("tokenization")


def test_a_failed_download_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise TokenizerError("no network,\nno vocabulary")

    monkeypatch.setattr(GPT2Tokenizer, "from_cache", fail)
    lecture.run(lecture.find("tokenization"))
    (line,) = re.findall("^gpt2 .*", capsys.readouterr().out, re.M)
    assert "cannot be downloaded; tinygpt tokenize hii --tokenizer gpt2 says more" in line
    assert len(line) <= 100


def test_three_tokenizers_cut_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpt2_files: Path
) -> None:
    needs("tiktoken")
    needs("sentencepiece")
    made = GPT2Tokenizer.from_files(gpt2_files / "encoder.json", gpt2_files / "vocab.bpe")
    monkeypatch.setattr(GPT2Tokenizer, "from_cache", lambda: made)
    lecture.run(lecture.find("tokenization"))
    text = capsys.readouterr().out
    assert text.count("  and back     'hii there, my lord'\n") == 3
    assert "6 of 50,257 tokens:" in text
    assert "h|ii| there|,| my| lord\n" in text
    assert "18 of 63 tokens:" in text
    assert " of 1,024 tokens:" in text
