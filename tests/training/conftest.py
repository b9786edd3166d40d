"""Fixtures of the tests of training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_run import TEXT

from tinygpt_np import TrainConfig
from tinygpt_np.text import dataset
from tinygpt_np.text.corpus import Corpus
from tinygpt_np.training import metrics, trainer


@pytest.fixture(scope="module", autouse=True)
def no_plots() -> Iterator[None]:
    """Train without plots, which take most of the time; test_metrics.py tests them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(metrics, "plot_losses", lambda run: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run of two steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    config = TrainConfig(
        block_size=4, n_layer=1, n_head=2, n_embd=8, batch_size=3, max_iters=2, eval_interval=1
    )
    list(trainer.Trainer.start(run, config, dataset.from_corpus(Corpus("hamlet", TEXT))))
    return run
