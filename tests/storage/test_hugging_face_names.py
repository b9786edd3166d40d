"""GPT-2's four names: what of huggingface_hub's cache, and of the network, they come from."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt_np import GPT, GPTConfig
from tinygpt_np.storage import hugging_face
from tinygpt_np.storage.checkpoint import CheckpointError

CONFIG = GPTConfig(vocab_size=11, block_size=7, n_layer=1, n_head=3, n_embd=12, bias=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    GPT(CONFIG).save_pretrained(tmp_path / "gpt")
    return tmp_path / "gpt"


class Hub:
    """huggingface_hub, as far as it is used. folder: its cache. cached: what is there. online:
    whether there is a network, from which the rest would come."""

    def __init__(self, folder: Path, cached: tuple[str, ...], online: bool) -> None:
        self.folder, self.cached, self.online = folder, cached, online
        self.asked = list[str]()

    def hf_hub_download(self, repository: str, name: str, local_files_only: bool) -> str:
        assert repository == "openai-community/gpt2-medium"
        if local_files_only and name not in self.cached:
            raise FileNotFoundError(name)
        if not local_files_only:
            self.asked.append(name)
            logging.getLogger("huggingface_hub.utils").error("an attempt, and another")
            warnings.warn("an account would be faster", stacklevel=2)
            if not self.online:
                raise BrokenError("no network")
        return str(self.folder / name)


class BrokenError(Exception):
    """As of another package, which is nobody's OSError."""


ALL = hugging_face.MODEL_FILES + hugging_face.TOKENIZER_FILES


@pytest.mark.parametrize(
    ("cached", "online", "asked"),
    [(ALL, False, []), ((), True, list(ALL)), (hugging_face.MODEL_FILES, False, ["config.json"])],
    ids=["cached", "online", "the model alone is cached"],
)
def test_a_name_goes_through_the_hubs_cache(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cached: tuple[str, ...],
    online: bool,
    asked: list[str],
) -> None:
    hub: Any = Hub(folder, cached, online)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found, expected = GPT.from_pretrained("gpt2-medium"), GPT(CONFIG)
    for name, param in expected.params.items():
        np.testing.assert_array_equal(found.params[name], param, err_msg=name)
    assert hub.asked == asked
    assert not caplog.records


def test_without_network_it_is_said_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub: Any = Hub(tmp_path, cached=(), online=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(CheckpointError) as caught:
        GPT.from_pretrained("gpt2-medium")
    message = str(caught.value)
    assert "gpt2-medium cannot be downloaded (no network)" in message
    assert "put config.json, model.safetensors, vocab.json, merges.txt" in message
    assert "of huggingface.co/openai-community/gpt2-medium into a folder and give that" in message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            type("LocalEntryNotFoundError", (Exception,), {})("Cannot find the file…"),
            "no connection",
        ),
        (ConnectionResetError(104, "reset"), "no connection"),
        (BrokenError("disk full\nmore"), "disk full"),
        (BrokenError(), "BrokenError"),
    ],
)
def test_a_failed_download_is_explained_in_a_few_words(error: Exception, reason: str) -> None:
    assert hugging_face.reason(error) == reason


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'tinygpt-np\[hf\]'"):
        GPT.from_pretrained("gpt2")
