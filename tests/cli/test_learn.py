"""Tests of the command tinygpt learn, in the working directory of a learner."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers.commands import Captured, error_of, output_of
from helpers.learners import planted, solved

from tinygpt_np import cli
from tinygpt_np.learn import training
from tinygpt_np.learn.course import course, find
from tinygpt_np.learn.judge import Verdict
from tinygpt_np.learn.skeleton import skeleton


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "learn" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fails(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["learn", *arguments])
    assert stop.value.code == 1


def test_the_map_names_every_exercise_and_the_next_one(folder: Path, capsys: Captured) -> None:
    out = output_of(capsys, "learn")
    assert all(f" {each.name} " in out.replace("\n", " ") for each in course())
    assert "next  tinygpt learn start chain" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert not (folder / "learn").exists()


def test_an_exercise_is_started_checked_and_solved_and_the_map_shows_it(
    folder: Path, capsys: Captured
) -> None:
    assert "written  learn/chain.py, 3 lines to write" in output_of(capsys, "learn", "start")
    assert (folder / "learn" / "chain.py").read_text(encoding="utf-8") == skeleton(find("chain"))
    fails("check")
    assert "next  write line" in capsys.readouterr().out
    write(folder, "chain", solved("chain"))
    out = output_of(capsys, "learn", "check")
    assert "✓ solved. The whole function is right" in out
    assert "next  tinygpt learn start sum" in out
    out = output_of(capsys, "learn")
    assert "✓ chain" in out
    assert "1  warm-ups: one idea each  1/10" in out


def test_a_bug_hunt_is_started_and_its_hints_lead_from_the_place_to_the_right_line(
    folder: Path, capsys: Captured
) -> None:
    out = output_of(capsys, "learn", "start", "bug_09")
    assert "written  learn/bug_09.py, one line is wrong" in out
    assert "put `# bug` at the end of the wrong line" in out
    fails("check")
    assert "Put the comment `# bug`" in capsys.readouterr().out
    hints = [output_of(capsys, "learn", "hint") for _ in range(4)]
    assert "The wrong line reverses `probs = exps / total`." in hints[0]
    assert "The right line: `dtotal = -(dprobs" in hints[3]


def test_a_file_is_never_overwritten_but_by_reset_which_keeps_the_old_one(
    folder: Path, capsys: Captured
) -> None:
    path = write(folder, "softmax", "mine")
    assert "learn/softmax.py exists already" in error_of(capsys, "learn", "start", "softmax")
    assert "add --yes" in error_of(capsys, "learn", "reset", "softmax")
    assert path.read_text() == "mine"
    output_of(capsys, "learn", "reset", "softmax", "--yes")
    assert path.read_text(encoding="utf-8") == skeleton(find("softmax"))
    assert path.with_name("softmax.py.old").read_text() == "mine"


def test_hints_go_from_what_is_asked_to_the_solution_which_is_counted(
    folder: Path, capsys: Captured
) -> None:
    write(folder, "softmax", solved("softmax", but=(1,)))
    outs = [output_of(capsys, "learn", "hint") for _ in range(5)]
    for number, out in zip((1, 2, 3, 4, 4), outs, strict=True):
        assert f"softmax, line 38, hint {number} of 4" in out
    assert "dtotal = -(dprobs * probs / total)" in outs[3]
    record = json.loads((folder / "learn" / "progress.json").read_text())["exercises"]["softmax"]
    assert record["hints"] == {"1": 4}
    assert record["solutions"] == 1


def test_the_exercise_edited_last_is_the_one_that_is_checked(
    folder: Path, capsys: Captured
) -> None:
    os.utime(write(folder, "linear", solved("linear")), (2, 2))
    os.utime(write(folder, "softmax", solved("softmax")), (1, 1))
    assert "linear, level 2" in output_of(capsys, "learn", "check")
    assert "softmax, level 2" in output_of(capsys, "learn", "check", "softmax")


def test_all_exercises_are_graded_as_json_for_a_classroom(folder: Path, capsys: Captured) -> None:
    write(folder, "linear", solved("linear"))
    wrong, line = planted(solved("softmax"), "dexps += dtotal", "dexps -= dtotal")
    write(folder, "softmax", wrong)
    fails("check", "--all", "--json")
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    linear, softmax = found["exercises"]
    assert (linear["name"], linear["ok"], linear["right"]) == ("linear", True, 4)
    assert (softmax["name"], softmax["ok"], softmax["right"]) == ("softmax", False, 4)
    assert softmax["mistake"]["line"] == line
    write(folder, "softmax", solved("softmax"))
    assert "2 of 2 exercises are solved" in output_of(capsys, "learn", "check", "--all")


def test_the_solution_is_shown_without_touching_the_file(folder: Path, capsys: Captured) -> None:
    path = write(folder, "softmax_closed", "mine")
    out = output_of(capsys, "learn", "solution", "softmax_closed")
    assert "dx = probs * (dprobs - weighted_mean)" in out
    assert path.read_text() == "mine"


def test_training_says_what_is_left_and_is_recorded_when_the_loss_is_as_expected(
    folder: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "these are not solved yet: linear" in error_of(capsys, "learn", "check", "training")
    monkeypatch.setattr(training, "train", Mock(return_value=Verdict(find("training"))))
    out = output_of(capsys, "learn", "check", "training")
    assert "Every gradient of this training was computed by your code." in out
    assert "✓ training" in output_of(capsys, "learn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("start", "training"), "training has no file: tinygpt learn check training trains a GPT"),
        (("start", "sotfmax"), "there is no exercise sotfmax; did you mean softmax?"),
        (("chek",), "ACTION must be one of start, check, hint"),
        (("check", "softmax"), "there is no learn/softmax.py; tinygpt learn start softmax"),
        (("check",), "there is no exercise in learn/; begin with tinygpt learn start"),
        (("start", "--json"), "--json goes with check"),
        (("check", "softmax", "--all"), "leave out softmax or --all"),
        (("check", "--watch", "--json"), "--watch goes with neither"),
    ],
)
def test_a_wrong_command_ends_in_a_sentence(
    folder: Path, capsys: Captured, arguments: tuple[str, ...], message: str
) -> None:
    assert message in error_of(capsys, "learn", *arguments)
