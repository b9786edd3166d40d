"""tinygpt study, as a person uses it."""

from pathlib import Path

import pytest
from cli.running import error_of, said
from helpers.processes import printed
from own_layer import FORWARD, RIGHT, WRONG, written

from tinygpt_np import cli
from tinygpt_np.study import targets

pytestmark = pytest.mark.usefixtures("workplace")


def test_without_a_target_there_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "study")
    assert all(name in out for name in targets.NAMES)
    assert "tinygpt study mylayer.py:forward,backward" in out


def test_a_target_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "study", "linear")
    assert "dx = dproduct @ weight.T" in out
    assert "4 verdicts, every one right" in out


def test_a_line_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert "rule: matrix product" in said(capsys, "study", "linear", "--line", "41")


def test_the_seed_is_that_of_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "study", "linear") != said(capsys, "study", "linear", "--seed", "5")
    assert "seed=5" in said(capsys, "study", "linear", "--seed", "5")


def test_all_are_shown_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "NAMES", ("linear", "bigram"))
    out = said(capsys, "study", "--all")
    assert out.count("every one right") == 2


def test_a_right_layer_of_ones_own_is_no_error(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "every one right" in said(capsys, "study", written(workplace, FORWARD + RIGHT))


def test_a_wrong_one_exits_with_1(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", written(workplace, FORWARD + WRONG)])
    assert stop.value.code == 1
    assert "likely cause: a mean or sum is missing" in capsys.readouterr().out


def test_its_arguments_may_be_described(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (FORWARD + RIGHT).replace('"""x (N, C), weight (C,), bias (C,) -> y (N, C)"""', "")
    described = "x (N, C), weight (C,), bias (C,)"
    assert "every one right" in said(capsys, "study", written(workplace, text), "--args", described)


def test_the_other_ways_to_call_an_operation_are_studied_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "linear-no-bias: 3 verdicts, every one right" in said(capsys, "study", "linear")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("nothing",), "what to study must be one of attention, "),
        (("linear", "--all"), "--all studies everything; leave out linear"),
        (("--line", "3"), "--line opens a line of one target in the terminal"),
        (("linear", "--line", "3"), "ops/linear.py has no line 3 to open; there are: 23, 27"),
        (("linear", "--line", "27", "--html", "x"), "--line opens a line of one target"),
        (("--args", "x (N,)"), "--args goes with FILE.py:forward,backward"),
        (("linear", "--args", "x (N,)"), "linear has its own arguments"),
        (("layer.py",), "given as FILE.py:forward,backward, not layer.py"),
        (("layer.py:a,b",), "there is no file layer.py"),
        (("linear", "--seed", "-1"), "--seed must be in [0, 2**32), not -1"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of(capsys, "study", *flags)


def test_a_study_needs_no_compiler() -> None:
    code = "from tinygpt_np import cli; cli.main(['study', 'linear']); import sys; "
    code += "assert 'numba' not in sys.modules"
    printed(code)
