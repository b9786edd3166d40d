"""Decoding: a GPT reads on from where it stopped, at one row of work for each new token.

The keys and values of a token depend on the token, on its place, and on what stands before it. As
long as a text only grows they stay what they are: they are kept, and a new token is one row through
the model, whose query looks at all the keys kept.

Past block_size the window moves on by one with each token. Every token in it then stands in another
place, so nothing kept is true any more, and the window is read anew. Even so only its last row is
asked for logits, and of the last block's other rows only keys and values are needed.
Source: Pope et al., "Efficiently Scaling Transformer Inference" (2022), section 3.3, for what is
kept; nanoGPT's `generate` for the window.
"""

from types import ModuleType

import numpy as np

from tinygpt_np.config import GPTConfig
from tinygpt_np.ops.contract import unguarded
from tinygpt_np.storage.parameters import Tensors


class Decoder:
    """What a GPT keeps of the texts it is reading, all of one length. Letter M: block_size.

    text: (B, T) the tokens in the window, T ≤ M. cache: (n_layer, 2, B, H, M, D) their keys
    [:, 0] and values [:, 1]. The model's parameters must not change between two reads.
    """

    def __init__(self, config: GPTConfig, params: Tensors, ops: ModuleType, batch: int) -> None:
        self.config, self.params, dtype = config, params, params["wte.weight"].dtype
        heads = (batch, config.n_head, config.block_size, config.n_embd // config.n_head)
        # Tokens are checked at the door; a step is short, and checks would be a third of it.
        self.ops = unguarded(ops)
        self.gelu = self.ops.gelu if config.gelu == "tanh" else self.ops.gelu_exact
        self.text = np.empty((batch, 0), np.int64)
        self.cache = np.empty((config.n_layer, 2, *heads), dtype)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (B, T) integers, the next of each text -> logits (B, V) of the token after."""
        kept, room = self.text.shape[1], self.config.block_size
        self.text = np.concatenate([self.text, tokens], axis=1)[:, -room:]
        grows_by_one = kept < room and tokens.shape[1] == 1
        return self.forward(kept if grows_by_one else 0)

    def forward(self, start: int) -> np.ndarray:
        """Reads the text from place `start` to its end -> logits (B, V) of the token after.

        Either all of it (start is 0) or its last token alone.
        """
        ops, params = self.ops, self.params
        batch, end = self.text.shape
        ids = self.text[:, start:].reshape(-1)  # (N,)
        places = np.tile(np.arange(start, end, dtype=np.int64), batch)  # (N,)
        token_rows, _ = ops.embedding.forward(ids, params["wte.weight"])  # (N, C)
        place_rows, _ = ops.embedding.forward(places, params["wpe.weight"])  # (N, C)
        x = token_rows + place_rows  # (N, C)
        last = self.config.n_layer - 1
        for layer in range(last):
            x = self.block(x, layer)  # (N, C)
        y = self.last_block(x, last)  # (B, C)
        normed, _ = ops.layer_norm.forward(y, *self.affine("ln_f"))  # (B, C)
        logits, _ = ops.linear.forward(normed, params["wte.weight"].T)  # (B, V)
        return logits

    def block(self, x: np.ndarray, layer: int) -> np.ndarray:
        """x (N, C), the latest rows of each text -> y (N, C). Keeps their keys and values."""
        ops = self.ops
        batch, channels = len(self.text), x.shape[1]
        normed, _ = ops.layer_norm.forward(x, *self.affine(f"h.{layer}.ln_1"))  # (N, C)
        qkv, _ = ops.linear.forward(normed, *self.affine(f"h.{layer}.attn.c_attn"))  # (N, 3C)
        self.keep(qkv[:, channels:], layer)
        if len(x) == batch:
            heads = self.look_back(qkv[:, :channels], layer)  # (B, C)
        else:
            heads, _ = ops.attention.forward(qkv, batch, self.config.n_head)  # (N, C)
        return self.add_branches(x, heads, layer)

    def last_block(self, x: np.ndarray, layer: int) -> np.ndarray:
        """x (N, C) -> y (B, C), the last row of each text. Keeps the keys and values of all."""
        ops = self.ops
        batch, channels = len(self.text), x.shape[1]
        time = len(x) // batch
        weight, bias = self.affine(f"h.{layer}.attn.c_attn")  # (C, 3C), (3C,)
        q_bias = None if bias is None else bias[:channels]  # (C,)
        kv_bias = None if bias is None else bias[channels:]  # (2C,)
        normed, _ = ops.layer_norm.forward(x, *self.affine(f"h.{layer}.ln_1"))  # (N, C)
        kv, _ = ops.linear.forward(normed, weight[:, channels:], kv_bias)  # (N, 2C)
        self.keep(kv, layer)
        last_normed = normed[time - 1 :: time]  # (B, C)
        q, _ = ops.linear.forward(last_normed, weight[:, :channels], q_bias)  # (B, C)
        heads = self.look_back(q, layer)  # (B, C)
        return self.add_branches(x[time - 1 :: time], heads, layer)

    def affine(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the weight and the bias (or None) of a layer."""
        return self.params[f"{name}.weight"], self.params.get(f"{name}.bias")

    def keep(self, kv: np.ndarray, layer: int) -> None:
        """kv (N, 2C): the keys and values of the text's latest places."""
        _, _, batch, n_head, _, head_size = self.cache.shape
        end = self.text.shape[1]
        start = end - len(kv) // batch
        parts = (batch, end - start, 2, n_head, head_size)
        self.cache[layer, :, :, :, start:end] = kv.reshape(parts).transpose(2, 0, 3, 1, 4)

    def look_back(self, q: np.ndarray, layer: int) -> np.ndarray:
        """q (B, C), the queries of the last place -> heads (B, C): attention to all that is kept.

        As in ops/attention.py, for one query a head; nothing after it stands there to be hidden.
        """
        _, _, batch, n_head, _, head_size = self.cache.shape
        keys, values = self.cache[layer, ..., : self.text.shape[1], :]  # (B, H, T, D)
        queries = q.reshape(batch, n_head, 1, head_size)  # (B, H, 1, D)
        products = queries @ keys.mT  # (B, H, 1, T)
        scores = products * head_size**-0.5  # (B, H, 1, T)
        probs, _ = self.ops.softmax.forward(scores)  # (B, H, 1, T)
        heads = probs @ values  # (B, H, 1, D)
        return heads.reshape(batch, n_head * head_size)

    def add_branches(self, x: np.ndarray, heads: np.ndarray, layer: int) -> np.ndarray:
        """x, heads (..., C) -> y (..., C): a block from what attention gathered to its end."""
        ops, h = self.ops, f"h.{layer}"
        out_1, _ = ops.linear.forward(heads, *self.affine(f"{h}.attn.c_proj"))  # (..., C)
        mid = x + out_1  # (..., C)
        normed, _ = ops.layer_norm.forward(mid, *self.affine(f"{h}.ln_2"))  # (..., C)
        hidden, _ = ops.linear.forward(normed, *self.affine(f"{h}.mlp.c_fc"))  # (..., 4C)
        activated, _ = self.gelu.forward(hidden)  # (..., 4C)
        out_2, _ = ops.linear.forward(activated, *self.affine(f"{h}.mlp.c_proj"))  # (..., C)
        y = mid + out_2  # (..., C)
        return y
