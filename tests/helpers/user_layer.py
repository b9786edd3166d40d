"""A user's own layer norm, with a right and a wrong backward, as a file to study."""

from pathlib import Path

LAYER_FORWARD = '''
import numpy as np


def forward(x, weight, bias):
    """x (N, C), weight (C,), bias (C,) -> y (N, C)"""
    mean = x.mean(axis=-1, keepdims=True)
    centered = x - mean
    std = np.sqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5)
    xhat = centered / std
    y = xhat * weight + bias
    return y, (xhat, std, weight)
'''
RIGHT_BACKWARD = """

def backward(dy, saved):
    xhat, std, weight = saved
    dxhat = dy * weight
    dweight = (dy * xhat).sum(axis=0)
    along_ones = dxhat.mean(axis=-1, keepdims=True)
    along_xhat = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = (dxhat - along_ones - xhat * along_xhat) / std
    return dx, dweight, dy.sum(axis=0)
"""
WRONG_LINE = "dx = dxhat / std"
WRONG_BACKWARD = f"""

def backward(dy, saved):
    xhat, std, weight = saved
    dxhat = dy * weight
    dweight = (dy * xhat).sum(axis=0)
    {WRONG_LINE}
    return dx, dweight, dy.sum(axis=0)
"""
RIGHT_LAYER, WRONG_LAYER = LAYER_FORWARD + RIGHT_BACKWARD, LAYER_FORWARD + WRONG_BACKWARD


def write_layer(folder: Path, text: str, name: str = "layer.py") -> str:
    """Write a file to a folder and return it as a target."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return f"{path}:forward,backward"
