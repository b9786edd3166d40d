"""The chapters: their order, what they print, and the figures by which they check themselves.

Most chapters are run with a few training steps and a short validation split. The slow tests train
for as many steps as the statement about the result needs.
"""

import ast
import importlib
import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from tinygpt_np import cli, lecture
from tinygpt_np.config import PRESETS
from tinygpt_np.lecture import sections, workbench
from tinygpt_np.lecture.chapter_02_tokenization import show
from tinygpt_np.lecture.chapter_11_cleanup import Factored
from tinygpt_np.text.tokenizers import GPT2Tokenizer, TokenizerError

CHAPTERS = lecture.chapters()
OPTIONAL = ("tiktoken", "tiktoken.load", "sentencepiece")
PACKAGE = Path(lecture.__file__).parents[1]
# The validation losses of the workbench.
BEFORE, AFTER = r"validation loss before @, after [\d.]+", r"validation loss before [\d.]+, after @"
every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=[c.name for c in CHAPTERS])


@cache
def printed(name: str, steps: int | None = 8) -> str:
    """Return the output of a chapter after some training steps; None trains it completely."""
    chapter = lecture.find(name)
    tokenizer, train, val = workbench.load_data()
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        for package in OPTIONAL:
            patch.setitem(sys.modules, package, None)
        for module in (workbench, importlib.import_module(chapter.module)):
            if steps is not None and hasattr(module, "STEPS"):
                patch.setattr(module, "STEPS", steps)
            if steps is not None and chapter.number > 10 and hasattr(module, "load_data"):
                patch.setattr(module, "load_data", lambda: (tokenizer, train, val[:5000]))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        lecture.run(chapter)
    return out.getvalue()


def numbers(pattern: str, text: str) -> list[float]:
    """Return the numbers at the @ in a pattern. There must be at least one match."""
    found = re.findall(pattern.replace("@", r"(-?[\d.,]+(?:e[+-]\d+)?)"), text)
    assert found, f"{pattern!r} is not in\n{text}"
    return [float(number.replace(",", "").rstrip(".")) for number in found]


def number(pattern: str, text: str) -> float:
    (found,) = numbers(pattern, text)
    return found


# The list of chapters


def test_the_chapters_are_in_the_order_of_the_video_and_listed_in_the_readme() -> None:
    *times, last = [chapter.timestamp for chapter in CHAPTERS]
    assert last == "afterwards"  # The adder is not in the video.
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", time) for time in times)
    assert times == sorted(set(times))
    readme = (PACKAGE / "lecture" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) +\| `([\w-]+)` +\| (\S+) +\| (.*?) +\|$", readme, re.M)
    listed = [(c.name, c.timestamp, c.title) for c in CHAPTERS]
    assert rows == [(str(number), *row) for number, row in enumerate(listed, start=1)]
    assert [chapter.number for chapter in CHAPTERS] == list(range(1, 20))


# Every chapter


@pytest.mark.slow
@every_chapter
def test_a_chapter_prints_finite_numbers_in_80_columns(chapter: lecture.Chapter) -> None:
    text = printed(chapter.name)
    lines = [line.rstrip() for line in text.splitlines()]
    assert len(lines) > 5
    results = [line for line in lines if not line.startswith(lecture.BAR.strip())]
    assert not re.search(r"\b(nan|inf)\b", "\n".join(results))
    # Sampled text has line breaks anywhere.
    assert [line for line in lines if re.search(r"\d|[░▒▓█]", line) and len(line) > 80] == []


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        *((chapter.name, "complex step: @ ") for chapter in CHAPTERS[10:17]),
        ("training", "largest difference from the library: @"),
        ("softmax", "largest difference from ops.softmax @"),
        ("head", r"against ops.attention: +@"),
        ("layer-norm", r"against ops.layer_norm: +@"),
        ("matmul", "largest difference over all 4 sequences: @"),
        ("softmax", "agree: largest difference @"),
    ],
)
def test_a_chapter_finds_only_rounding_errors(name: str, pattern: str) -> None:
    assert number(pattern, printed(name)) < 1e-12


# The sections


@every_chapter
def test_lines_that_matter_fit_80_columns_and_the_chapter_ends_with_a_thing_to_try(
    chapter: lecture.Chapter,
) -> None:
    content = sections.read(chapter.path)
    assert content.sections[-1].title == "Try it"
    assert 3 <= len(content.sections) <= 6
    source = chapter.path.read_text(encoding="utf-8")
    assert "def main() -> None:\n    # %% " in source
    assert source.count("%%") == len(content.sections)  # No misspelt heads.
    for section in content.sections:
        assert section.prose, section.title
        for line in section.matters.splitlines():
            assert len(line) <= 80 - len(lecture.BAR), line


def commands() -> list[str]:
    """Return the commands that the chapters suggest."""
    calls = (
        node
        for chapter in CHAPTERS
        for node in ast.walk(ast.parse(chapter.path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("try_it")
    )
    return [ast.literal_eval(call.args[0]) for call in calls]


@pytest.mark.parametrize("command", commands())
def test_what_to_try_is_a_valid_command(command: str) -> None:
    assert len(command) <= 78
    program, *arguments = shlex.split(command)
    if program == "python":
        flag, code = arguments
        assert flag == "-c"
        compile(code, "command", "exec")
    else:
        assert program == "tinygpt"
        assert type(cli.parse(arguments)[0]).__name__.lower() == arguments[0]


@pytest.mark.parametrize("name", ["bigram", "averaging", "trick", "softmax"])
def test_main_prints_the_results_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(lecture.find(name).module).main()
    lines, together = capsys.readouterr().out.splitlines(), printed(name).splitlines()
    assert len(lines) > 10
    assert [line for line in together if line in {*lines} and line] == [*filter(None, lines)]


# The workbench


def test_the_gradient_check_detects_a_wrong_gradient_and_keeps_the_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Factored(63, 32)
    correct, before = model.backward, {name: p.copy() for name, p in model.params.items()}

    def wrong(dlogits: np.ndarray, saved: Any) -> dict[str, np.ndarray]:
        grads = correct(dlogits, saved)
        return {**grads, "head": 1.0005 * grads["head"]}

    model.backward = wrong
    workbench.check_gradient(model)
    assert number("complex step: @ ", capsys.readouterr().out) > 1e-6
    assert all(np.array_equal(model.params[name], before[name]) for name in before)


def test_maps_that_do_not_fit_side_by_side_go_below_each_other() -> None:
    maps = {str(n): np.tri(16) / np.arange(1, 17)[:, None] for n in range(3)}
    lines = workbench.heat_maps(maps, "my lord, my king").splitlines()
    assert [line.split() for line in lines if line.startswith("  ") and line[2].isdigit()] == [
        ["0", "1"],
        ["2"],
    ]
    assert max(map(len, lines)) <= 80


def test_blocks_show_losses_from_the_largest_to_the_smallest() -> None:
    assert workbench.loss_bars([4.0, 3.0, 2.0, 2.5]) == "loss █▅▁▃  from 4.00 to 2.50"
    assert workbench.loss_bars([3.0, 3.0]) == "loss ▁▁  from 3.00 to 3.00"
    assert len(workbench.loss_bars([*range(5000)])) < 80


def test_a_heat_map_shades_the_past_and_leaves_the_future_blank() -> None:
    probs = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.02, 0.1, 0.2]])
    lines = workbench.heat_maps({"head": probs}, "a b").splitlines()
    assert lines[:5] == ["  head", "  a _ b", "a ██", "_ ▓▓▓▓", "b ··░░▒▒"]


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the figures that are shown from now on, as in a notebook."""
    shown: list[Any] = []
    monkeypatch.setattr(workbench, "in_notebook", lambda: True)
    monkeypatch.setattr(workbench, "display", shown.append)
    return shown


def test_losses_are_a_plot_in_a_notebook(pictures: list[Any]) -> None:
    workbench.show_losses([3.0, 2.0, 1.0])
    ((axes,),) = [figure.axes for figure in pictures]
    every, means = axes.lines
    assert [*every.get_ydata()] == [*means.get_ydata()] == [3.0, 2.0, 1.0]
    pictures[0].savefig(io.BytesIO())


def test_weights_are_pictures_without_the_future_in_a_notebook(pictures: list[Any]) -> None:
    probs = np.tri(3) / [[1], [2], [3]]
    workbench.show_maps({"first": probs, "second": probs, "third": probs}, "a b")
    (figure,) = pictures
    first, second, third, scale = figure.axes
    assert [axes.get_title() for axes in (first, second, third)] == ["first", "second", "third"]
    assert first.images[0].get_array().compressed().tolist() == probs[np.tri(3) > 0].tolist()
    assert scale.get_ylabel() == "weight"
    figure.savefig(io.BytesIO())


def test_only_a_shell_with_a_kernel_is_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not workbench.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", Mock(get_ipython=Mock(return_value=None)))
    assert not workbench.in_notebook()
    for attributes in ([], ["kernel"]):
        shell = Mock(spec=attributes)
        monkeypatch.setitem(sys.modules, "IPython", Mock(get_ipython=Mock(return_value=shell)))
        assert workbench.in_notebook() == ("kernel" in attributes)


# Single chapters


def test_tokenization_prints_one_line_for_a_missing_tokenizer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "this tokenizer needs {}: pip install 'tinygpt-np[tokenizers]'"
    for package in ("tiktoken", "sentencepiece"):
        assert message.format(package) in printed("tokenization")
    # Any other error of a tokenizer.
    monkeypatch.setattr(GPT2Tokenizer, "from_cache", Mock(side_effect=TokenizerError("no,\nno")))
    show("gpt2", GPT2Tokenizer.from_cache)
    expected = "gpt2\n  cannot be downloaded; see tinygpt tokenize hii --tokenizer gpt2\n"
    assert capsys.readouterr().out == expected


def test_an_untrained_table_costs_half_a_nat_more_than_a_uniform_guess() -> None:
    text = printed("bigram")
    uniform = number("uniform guess, ln V +@", text)
    assert abs(uniform - np.log(63)) < 1e-4
    assert abs(number("tables: @ on average", text) - uniform - 0.49) < 0.02
    assert abs(number("without preferences: @", text) - uniform) < 0.01
    assert 0 < number(r"\(here\) and\s+@ above it \(video\)", text) < 2


@pytest.mark.slow
def test_training_the_bigram_ends_near_the_loss_of_counting_pairs() -> None:
    text = printed("training", None)
    loss = number("validation loss after @", text)
    counted = number("counting the pairs of the training text @:", text)
    assert 2.45 < counted < loss < counted + 0.02
    last = re.findall("^step .*", printed("script", None), re.M)[-1]
    assert all(2.4 < loss < 2.55 for loss in numbers("loss @", last))


def test_attention_sees_only_the_past_and_scaling_keeps_the_variance_at_one() -> None:
    assert "rows 0 to 4 stay" in printed("averaging")
    rows = [line.split() for line in re.findall(r"^ ?(?:4|16|64)  .*", printed("head"), re.M)]
    assert [int(row[0]) for row in rows] == [4, 16, 64]
    for width, expected, measured, expected_scaled, measured_scaled, *_ in rows:
        assert (expected, expected_scaled) == (width, "1")
        assert abs(float(measured) / int(expected) - 1) < 0.05
        assert abs(float(measured_scaled) - 1) < 0.05


def test_the_gradient_vanishes_with_depth_without_residual_connections() -> None:
    lines = re.findall(r"^  (?:without|expected|with) +\d.*", printed("residual"), re.M)
    without, expected, residual = (numbers("@", line) for line in lines)
    assert without[0] > 1e3 * without[2] > 1e6 * without[3]
    assert min(residual) > max(residual) / 2
    # The first two predict the others, over nine orders of magnitude.
    assert expected[:2] == without[:2]
    assert np.allclose(np.log(expected), np.log(without), rtol=0.1)


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("cleanup", r"s² / 2 = [\d.]+ \+ [\d.]+ = @", 0.02),
        ("head", r"before ln \d+ = @", 0.03),
        ("layer-norm", r"before ln \d+ \+ 1/6 = @", 0.05),
    ],
)
def test_the_loss_before_training_is_as_expected(
    name: str, expected: str, tolerance: float
) -> None:
    text = printed(name)
    assert abs(numbers(BEFORE, text)[0] - number(expected, text)) < tolerance


def test_enlarged_weights_with_layer_norm_cost_what_random_logits_do() -> None:
    text = printed("layer-norm")
    _, residual_only, normed = numbers(BEFORE, text)
    assert abs(normed - number("expected with layer norm: before @", text)) < 0.4
    assert residual_only > 1000


def test_two_words_of_the_same_letters_differ_by_their_positions_only() -> None:
    text = printed("positions")
    assert number("tokens alone +expected 0, measured @", text) < 1e-6
    assert number("with positions +@", text) > 0.01


def test_dot_products_of_positions_are_as_expected_at_distance_0() -> None:
    text = printed("positions")
    sines, learned = numbers(r"(?:sines|random) @(?=,|$|\n)", text)
    zeros = numbers(r"from position \d: +@", text)
    assert zeros[0] == zeros[1] == sines == 16
    assert abs(zeros[2] - learned) < 1


def test_an_untrained_head_spreads_its_weight_evenly() -> None:
    text = printed("head")
    expected = number("last row, untrained: expected @%", text)
    (low, high) = re.findall(r"measured ([\d.]+)% to ([\d.]+)%", text)[0]
    assert 0.8 * expected < float(low) < expected < float(high) < 1.2 * expected


def test_heads_have_as_many_parameters_as_expected_and_their_own_distances() -> None:
    text = printed("multi-head")
    assert number("= @ weights", text) == number("weights of attention, has @", text) == 4 * 32**2
    assert number("if spread evenly: @;", text) == 1.5
    assert len(numbers("@", re.findall(r"head by head:\n(.*)", text)[0])) == 4


def test_two_linear_layers_are_one_matrix_unless_there_is_gelu_between() -> None:
    text = printed("feed-forward")
    assert number("without GELU +expected 0, measured @", text) < 1e-13
    assert number("with GELU +@", text) > 0.1


def test_the_gradient_of_layer_norm_has_no_part_along_the_ones_or_xhat() -> None:
    text = printed("layer-norm")
    assert number("along the ones: expected 0, measured +@", text) < 1e-13
    assert number("along xhat: +expected 0, measured +@", text) < 1e-4  # epsilon


def test_dropout_and_the_gpt_before_training_are_as_expected() -> None:
    text = printed("gpt")
    assert number("the mean is 1 ± @", text) == 0.005
    total = number("channels: @ parameters", text)
    blocks, embeddings = number(r"expected: @ \+", text), number(r"\+ @, and 5 layer", text)
    assert total == blocks + embeddings + 5 * 128
    expected, measured = number("before, expected @,", text), number("measured @\n", text)
    assert abs(expected - measured) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "gain"),
    [("multi-head", 400, 0.05), ("feed-forward", None, 0.03), ("residual", 400, 0.2)],
)
def test_the_last_model_of_a_chapter_has_the_lower_loss(
    name: str, steps: int | None, gain: float
) -> None:
    *_, first, second = numbers(AFTER, printed(name, steps))
    assert second < first - gain


@pytest.mark.slow
def test_feed_forward_layers_without_gelu_add_nothing_to_attention() -> None:
    alone, linear, _ = numbers(AFTER, printed("feed-forward", None))
    assert abs(linear - alone) < 0.03


@pytest.mark.slow
def test_layer_norm_makes_weights_that_start_too_large_trainable() -> None:
    _, without, normed = numbers(AFTER, printed("layer-norm", 60))
    assert normed < 10 < 100 < without


def test_the_run_at_the_end_of_the_lecture_takes_as_long_as_the_readme_says() -> None:
    readme = (PACKAGE / "training" / "README.md").read_text(encoding="utf-8")
    seconds = number("steps of about @ s each", printed("gpt"))
    hours = number("so about @ hours", printed("gpt"))
    assert abs(number("the mean stays: @", printed("gpt")) - 1) < 0.02  # With dropout.
    assert hours == round(PRESETS["lecture"].max_iters * seconds / 3600) == 10
    assert f"takes about {seconds:.0f} seconds" in " ".join(readme.split())
    assert f"about {hours:.0f} hours" in " ".join(readme.split())
