"""The first signal sets a flag, and the second one stops."""

import os
import signal

import pytest
from helpers.commands import Captured

from tinygpt_np.training.signals import interrupts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses POSIX signals")


def test_the_first_interrupt_sets_a_flag_and_the_second_stops(capsys: Captured) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()
        assert "finishing this step and saving" in capsys.readouterr().err
        signal.raise_signal(signal.SIGHUP)  # These never stop at once.
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_warning_of_a_batch_system_sets_the_flag() -> None:
    with interrupts() as interrupted:
        signal.raise_signal(signal.SIGUSR1)
        assert interrupted()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_quiet_rank_sets_the_flag_and_prints_nothing(capsys: Captured) -> None:
    with interrupts(quiet=True) as interrupted:
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()
    assert capsys.readouterr() == ("", "")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)
