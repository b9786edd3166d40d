"""Change the files of a folder in Hugging Face's format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

LIBRARY: Any = safetensors.numpy  # Its types are those of an older NumPy.


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    return LIBRARY.load_file(folder / "model.safetensors")


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    (folder / "model.safetensors").unlink()  # Never into a file that a test has mapped.
    LIBRARY.save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, changes: dict[str, Any]) -> None:
    """Change fields of config.json; ... removes a field."""
    found = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in found.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def split_weights(folder: Path) -> None:
    """Move the weights to two files and an index, as transformers does with large models."""
    tensors = list(read_tensors(folder).items())
    (folder / "model.safetensors").unlink()
    index: dict[str, str] = {}
    for number, part in enumerate((tensors[:9], tensors[9:])):
        name = f"model-{number}.safetensors"
        LIBRARY.save_file(dict(part), folder / name)
        index |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
