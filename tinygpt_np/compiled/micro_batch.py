"""One micro-batch through the compiled GPT: what model.py does, in buffers that are made once.

The calls are those of model.py, in its order; what is fused is said at the line. Gradients are
added to those of the micro-batches before it, always in the order of their numbers (see
waiting.Turns), so the sums have the same bits on any thread, and nothing but the gradient
itself is kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt_np.compiled.kernels import (
    attention,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    gelu_exact,
    layer_norm,
    linear,
)
from tinygpt_np.compiled.products import HEAD, NOTHING, Products
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.team import ALONE, Team
from tinygpt_np.compiled.waiting import Turns
from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Tensors, mask_shapes

NO_BIAS = np.zeros(0, np.float32)
# Each place of a dropout mask takes its bits from a key of its own, this far from the next.
KEY_STEP = 0x9E3779B97F4A7C15
# Where numbers are shared out, so many go together: whole vectors, however they are unrolled.
STRETCH = 1 << 12


@dataclass(frozen=True)
class Step:
    """What all micro-batches of a step share.

    grads: what they add to. dembedded (B·T, C): the gradient of what the embedding gave, of which
    each writes its own rows. scale: 1 / number of targets that count. key: of the dropout masks, or
    None for no dropout. team: who shares out what is done in a micro-batch.
    """

    params: Tensors
    grads: Tensors
    dembedded: np.ndarray
    products: Products
    turns: Turns
    scale: float
    key: int | None
    team: Team = ALONE


class Layer:
    """What a block saves for its backward, N rows."""

    def __init__(self, config: GPTConfig, texts: int, time: int, arena: Arena) -> None:
        N, C, zeros = texts * time, config.n_embd, arena.zeros
        self.x, self.normed_1, self.qkv, self.heads = (
            zeros(N, C),
            zeros(N, C),
            zeros(N, 3 * C),
            zeros(N, C),
        )
        self.mid, self.normed_2 = zeros(N, C), zeros(N, C)
        self.hidden, self.activated = zeros(N, 4 * C), zeros(N, 4 * C)
        self.mean_1, self.rstd_1, self.mean_2, self.rstd_2 = zeros(4, N)
        self.stats = zeros(texts, config.n_head, time, 2)
        self.attention_mask = attention.NO_MASK
        self.masks: list[np.ndarray] = []
        if config.dropout:
            self.attention_mask = zeros(texts, config.n_head, time, time)
            self.masks = [zeros(N, C), zeros(N, C)]


class MicroBatch:
    """Buffers for `texts` texts of `time` tokens, and what is done in them."""

    def __init__(self, config: GPTConfig, texts: int, time: int) -> None:
        self.config, self.texts, self.time = config, texts, time
        arena = Arena()
        N, C, zeros = texts * time, config.n_embd, arena.zeros
        self.layers = [Layer(config, texts, time, arena) for _ in range(config.n_layer)]
        self.x, self.normed, self.dx, self.dnormed, self.branch = (zeros(N, C) for _ in range(5))
        self.dqkv, self.dhidden = zeros(N, 3 * C), zeros(N, 4 * C)
        self.logits = zeros(N, config.vocab_size)
        self.mean, self.rstd = zeros(2, N)
        self.losses = np.zeros(N)
        self.mask = zeros(N, C) if config.dropout else NO_BIAS
        self.rooms = attention.make_rooms(arena, time, C // config.n_head)
        self.room = self.rooms[0]
        self.dropping = False
        self.gelu: Any = gelu if config.gelu == "tanh" else gelu_exact

    def loss(self, tokens: np.ndarray, targets: np.ndarray, step: Step) -> float:
        """tokens, targets (N,) -> the sum of the losses of their rows, without dropout."""
        self.forward(tokens, step, None)
        cross_entropy.forward_rows(self.logits, targets, self.logits, self.losses)
        return float(self.losses.sum())

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, step: Step, number: int, first: int
    ) -> float:
        """The same, and adds to step.grads; the number of the micro-batch, and of its first text.

        One with an even number adds a gradient before it goes on, one with an odd number after: of
        two in step with each other, neither waits.
        """
        self.forward(tokens, step, first)
        # Logits to dlogits in one go: the loss itself is not needed in between.
        logits, losses, scale = self.logits, self.losses, np.float32(step.scale)

        def loss_of(rows: slice) -> None:
            cross_entropy.loss_and_dlogits(logits[rows], targets[rows], scale, losses[rows])

        step.team.over(len(logits), 1, loss_of)
        self.backward(step, number, slice(first * self.time, first * self.time + len(tokens)))
        return float(self.losses.sum())

    def forward(self, tokens: np.ndarray, step: Step, first: int | None) -> None:
        """tokens (N,) -> self.logits (N, V). first: number of the first text, None: no dropout."""
        params = step.params
        self.dropping = bool(self.config.dropout) and first is not None and step.key is not None
        x = self.layers[0].x  # (N, C)
        embedding.embed(tokens, self.time, params["wte.weight"], params["wpe.weight"], x)
        if self.dropping:
            self.draw_masks(step.key or 0, first or 0)
            dropout.forward_values(flat(x), flat(self.mask), flat(x))
        for number, layer in enumerate(self.layers):
            following = self.layers[number + 1 :]
            y = following[0].x if following else self.x  # (N, C)
            self.block_forward(layer, y, f"h.{number}", step)
        weight, bias = affine(params, "ln_f")
        layer_norm.forward_rows(self.x, weight, bias, self.normed, self.mean, self.rstd)
        step.products.forward(self.normed, HEAD, NOTHING, self.logits, self.room, step.team)

    def block_forward(self, layer: Layer, y: np.ndarray, h: str, step: Step) -> None:
        """layer.x (N, C) -> y (N, C)."""
        params, config = step.params, self.config
        mask = layer.attention_mask if self.dropping else attention.NO_MASK
        layer_norm.forward_rows(
            layer.x, *affine(params, f"{h}.ln_1"), layer.normed_1, layer.mean_1, layer.rstd_1
        )
        self.linear(layer.normed_1, f"{h}.attn.c_attn", step, layer.qkv)

        def attend(heads: slice) -> None:
            room, tiles, _, panels = self.rooms_of(step.team)
            attention.forward_texts(
                layer.qkv, config.n_head, mask, layer.heads, layer.stats, heads.start,
                heads.stop, room, tiles, panels,
            )  # fmt: skip

        step.team.over(self.texts * config.n_head, 1, attend)
        masks = layer.masks if self.dropping else [None, None]
        self.residual(layer.x, layer.heads, f"{h}.attn.c_proj", step, masks[0], layer.mid)
        layer_norm.forward_rows(
            layer.mid, *affine(params, f"{h}.ln_2"), layer.normed_2, layer.mean_2, layer.rstd_2
        )
        self.linear(layer.normed_2, f"{h}.mlp.c_fc", step, layer.hidden)
        hidden, activated = flat(layer.hidden), flat(layer.activated)
        step.team.over(
            len(hidden), STRETCH, lambda at: self.gelu.forward_values(hidden[at], activated[at])
        )
        self.residual(layer.mid, layer.activated, f"{h}.mlp.c_proj", step, masks[1], y)

    def linear(self, x: np.ndarray, name: str, step: Step, y: np.ndarray) -> None:
        """y (N, K) = x (N, C) · weight + bias; the product starts from the bias."""
        bias = step.params.get(f"{name}.bias")
        start = NOTHING if bias is None else bias[None]
        step.products.forward(x, f"{name}.weight", start, y, self.room, step.team)

    def residual(
        self, x: np.ndarray, branch: np.ndarray, name: str, step: Step,
        mask: np.ndarray | None, y: np.ndarray,
    ) -> None:  # fmt: skip
        """y (N, C) = x + dropout(branch · weight + bias); without dropout in one product."""
        if mask is not None:
            self.linear(branch, name, step, self.branch)
            dropout.add_masked(flat(x), flat(self.branch), flat(mask), flat(y))
            return
        start, bias = x, step.params.get(f"{name}.bias")
        if bias is not None:
            linear.add_bias(x, bias, y)
            start = y
        step.products.forward(branch, f"{name}.weight", start, y, self.room, step.team)

    def backward(self, step: Step, number: int, rows: slice) -> None:
        """self.logits holds dlogits; adds to the gradients of all but the embedding."""
        dx, dlogits = self.dx, self.logits  # (N, C), (N, V)

        def head_gradient() -> None:
            self.gradient(dlogits, self.normed, "wte.weight", step, number)

        def head_input() -> None:
            step.products.backward(dlogits, HEAD, self.dnormed, self.room, step.team)

        in_turn(number, head_gradient, head_input)
        dx.fill(0)
        self.layer_norm(self.dnormed, self.x, "ln_f", self.mean, self.rstd, step, number)
        for layer in reversed(range(self.config.n_layer)):
            self.block_backward(self.layers[layer], f"h.{layer}", step, number)
        dembedded = step.dembedded[rows]  # (N, C)
        if self.dropping:
            dropout.forward_values(flat(dx), flat(self.mask), flat(dembedded))
        else:
            dembedded[...] = dx

    def block_backward(self, layer: Layer, h: str, step: Step, number: int) -> None:
        """self.dx: the gradient of the block's output (N, C) becomes that of its input."""
        config, dx, dhidden = self.config, self.dx, self.dhidden
        dout_2 = self.dropped(layer.masks[1]) if self.dropping else dx  # (N, C)
        self.linear_backward(dout_2, layer.activated, f"{h}.mlp.c_proj", dhidden, step, number)
        dvalues, values = flat(dhidden), flat(layer.hidden)
        step.team.over(
            len(values),
            STRETCH,
            lambda at: self.gelu.backward_values(dvalues[at], values[at], dvalues[at]),
        )
        self.linear_backward(dhidden, layer.normed_2, f"{h}.mlp.c_fc", self.dnormed, step, number)
        # Adds to dx, past which the branch went.
        self.layer_norm(
            self.dnormed, layer.mid, f"{h}.ln_2", layer.mean_2, layer.rstd_2, step, number
        )
        dout_1 = self.dropped(layer.masks[0]) if self.dropping else dx  # (N, C)
        self.linear_backward(dout_1, layer.heads, f"{h}.attn.c_proj", self.dnormed, step, number)
        mask = layer.attention_mask if self.dropping else attention.NO_MASK

        def attend_backward(heads: slice) -> None:
            attention.backward_texts(
                self.dnormed, layer.qkv, config.n_head, mask, layer.stats, self.dqkv,
                heads.start, heads.stop, *self.rooms_of(step.team),
            )  # fmt: skip

        step.team.over(self.texts * config.n_head, 1, attend_backward)
        self.linear_backward(
            self.dqkv, layer.normed_1, f"{h}.attn.c_attn", self.dnormed, step, number
        )
        self.layer_norm(
            self.dnormed, layer.x, f"{h}.ln_1", layer.mean_1, layer.rstd_1, step, number
        )

    def linear_backward(
        self, dy: np.ndarray, x: np.ndarray, name: str, dx: np.ndarray, step: Step, number: int
    ) -> None:
        """dy (N, K), x (N, C) -> dx (N, C), and adds to the gradients of weight and bias."""

        def gradient() -> None:
            self.gradient(x, dy, f"{name}.weight", step, number)

        def backward() -> None:
            step.products.backward(dy, f"{name}.weight", dx, self.room, step.team)

        in_turn(number, gradient, backward)

    def gradient(self, x: np.ndarray, dy: np.ndarray, name: str, step: Step, number: int) -> None:
        """Adds xᵀ dy to the gradient of a weight, and the column sums of dy to that of its bias."""
        dweight = step.grads[name]
        dbias = step.grads.get(name.replace(".weight", ".bias"))
        step.turns.wait(name, number)
        start = NOTHING if number == 0 else dweight
        step.products.gradient(x, dy, start, dweight, self.room, step.team)
        if dbias is not None:
            if number == 0:
                dbias.fill(0)
            linear.add_column_sums(dy, dbias)
        step.turns.done(name, number)

    def layer_norm(
        self, dy: np.ndarray, x: np.ndarray, name: str, mean: np.ndarray, rstd: np.ndarray,
        step: Step, number: int,
    ) -> None:  # fmt: skip
        """Adds to self.dx and to the gradients of a layer norm's scales and shifts."""
        weight, _ = affine(step.params, name)
        dweight, dbias = affine(step.grads, name)
        step.turns.wait(name, number)
        if number == 0:
            dweight.fill(0)
            dbias.fill(0)
        layer_norm.backward_rows(dy, x, weight, mean, rstd, self.dx, dweight, dbias)
        step.turns.done(name, number)

    def rooms_of(self, team: Team) -> tuple[np.ndarray, ...]:
        """Memory for attention on this thread: this micro-batch's, unless it is shared out."""
        if team.count == 1:
            return self.rooms
        size = self.config.n_embd // self.config.n_head
        return workspace.get(attention.make_rooms, self.time, size)

    def dropped(self, mask: np.ndarray) -> np.ndarray:
        """self.dx · mask."""
        dropout.forward_values(flat(self.dx), flat(mask), flat(self.branch))
        return self.branch

    def draw_masks(self, key: int, first: int) -> None:
        """Fills this micro-batch's part of the masks that draw_masks draws for a whole batch."""
        places = [self.mask]
        for layer in self.layers:
            places += [layer.attention_mask, *layer.masks]
        for place, mask in enumerate(places):
            start = mask.size // self.texts * first
            dropout.fill_mask(flat(mask), self.config.dropout, place_key(key, place), start)


def draw_masks(config: GPTConfig, texts: int, time: int, key: int) -> Tensors:
    """The masks of a whole batch, as model.py takes them, that a key stands for."""
    shapes = mask_shapes(config, texts, time)
    masks = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for place, mask in enumerate(masks.values()):
        dropout.fill_mask(flat(mask), config.dropout, place_key(key, place), 0)
    return masks


def place_key(key: int, place: int) -> np.uint64:
    return np.uint64((key + place * KEY_STEP) % 2**64)


def in_turn(number: int, gradient: Any, backward: Any) -> None:
    first, second = (gradient, backward) if number % 2 == 0 else (backward, gradient)
    first()
    second()


def affine(tensors: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the bias of a layer; the bias is (0,) if there is none."""
    return tensors[f"{name}.weight"], tensors.get(f"{name}.bias", NO_BIAS)


def flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)
