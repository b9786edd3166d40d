"""One micro-batch through the compiled GPT: the calls of model/gpt.py, in buffers made once.

The calls come in the model's order; comments say where several are fused. Gradients are added to
those of earlier micro-batches, in the order of their numbers (ParallelRegion.ordered), so the sums
have the same bits on any number of threads and no gradient is stored per micro-batch.
"""

from dataclasses import dataclass
from types import ModuleType

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
from tinygpt_np.compiled.matmuls import NOTHING, Matmuls
from tinygpt_np.compiled.simd.memory import Arena, workspace
from tinygpt_np.compiled.threads import ALONE, ParallelRegion, ThreadTeam
from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Tensors, mask_shapes

NO_BIAS = np.zeros(0, np.float32)
# Each dropout mask of a step has a key of its own, which differs from the next by this.
KEY_STEP = 0x9E3779B97F4A7C15
# Elementwise work is split at multiples of this, so that vectorised loops do not change.
ELEMENTS = 1 << 12


@dataclass(frozen=True)
class Step:
    """Arrays and settings that all micro-batches of a step share.

    grads are added to. dembedded (B·T, C) is the gradient of the embedding's output, of which each
    micro-batch writes its own rows. scale is 1 / the number of targets that count. dropout_key is
    None for no dropout. team are the threads that split the operations of a micro-batch.
    """

    params: Tensors
    grads: Tensors
    dembedded: np.ndarray
    matmuls: Matmuls
    region: ParallelRegion
    scale: float
    dropout_key: int | None
    team: ThreadTeam = ALONE


class Layer:
    """Activations that a block saves for its backward, N rows."""

    def __init__(self, config: GPTConfig, batch: int, time: int, arena: Arena) -> None:
        N, C, zeros = batch * time, config.n_embd, arena.zeros
        self.x, self.normed_1 = zeros(N, C), zeros(N, C)
        self.qkv, self.heads = zeros(N, config.qkv_width), zeros(N, C)
        self.mid, self.normed_2 = zeros(N, C), zeros(N, C)
        self.hidden = zeros(N, config.hidden_width)
        self.activated = zeros(N, config.inner_width)
        # Mean and 1/s of each row.
        self.norm_1, self.norm_2 = (tuple(rows) for rows in zeros(2, 2, N))
        self.stats = zeros(batch, config.n_head, time, 2)
        self.attention_mask = attention.NO_MASK
        self.masks: list[np.ndarray] = []
        if config.dropout:
            self.attention_mask = zeros(batch, config.n_head, time, time)
            self.masks = [zeros(N, C), zeros(N, C)]


class MicroBatch:
    """Forward and backward of `batch` sequences of `time` tokens, in buffers of their own."""

    step: Step
    number: int
    dropping: bool

    def __init__(self, config: GPTConfig, batch: int, time: int) -> None:
        self.config, self.batch, self.time = config, batch, time
        self.head = config.head_name.removesuffix(".weight")
        arena = Arena()
        N, C, zeros = batch * time, config.n_embd, arena.zeros
        self.layers = [Layer(config, batch, time, arena) for _ in range(config.n_layer)]
        self.x, self.normed, self.dx, self.dnormed, self.branch = (zeros(N, C) for _ in range(5))
        self.dqkv, self.dhidden = zeros(N, config.qkv_width), zeros(N, config.hidden_width)
        self.logits = zeros(N, config.vocab_size)
        self.norm = tuple(zeros(2, N))
        self.losses = np.zeros(N)
        self.mask = zeros(N, C) if config.dropout else NO_BIAS
        self.attention_scratch = attention.make_scratch(arena, time, C // config.n_head)
        self.scratch = self.attention_scratch.matmul
        self.gelu: ModuleType = gelu if config.activation == "gelu" else gelu_exact

    def loss(self, tokens: np.ndarray, targets: np.ndarray, step: Step) -> float:
        """tokens, targets (N,) -> the sum of their losses, without dropout."""
        self.step, self.dropping = step, False
        self.forward(tokens)
        cross_entropy.forward_rows(self.logits, targets, self.logits, self.losses)
        return float(self.losses.sum())

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, step: Step, number: int, first: int
    ) -> float:
        """tokens, targets (N,) -> the sum of their losses; adds to step.grads.

        `number` is that of the micro-batch, `first` that of its first sequence in the batch.
        """
        self.step, self.number = step, number
        self.dropping = bool(self.config.dropout) and step.dropout_key is not None
        if self.dropping:
            self.draw_masks(step.dropout_key or 0, first)
        self.forward(tokens)
        # Fused: softmax, loss and dlogits.
        logits, losses, scale = self.logits, self.losses, np.float32(step.scale)

        def loss_of(rows: slice) -> None:
            cross_entropy.loss_and_dlogits(logits[rows], targets[rows], scale, losses[rows])

        step.team.split(len(logits), 1, loss_of)
        self.backward(step.dembedded[first * self.time :][: len(tokens)])
        return float(self.losses.sum())

    def forward(self, tokens: np.ndarray) -> None:
        """tokens (N,) -> self.logits (N, V)."""
        step, x = self.step, self.layers[0].x  # (N, C)
        wte, wpe = step.params["wte.weight"], step.params.get("wpe.weight")
        if wpe is None:
            embedding.forward_rows(tokens, wte, x)
        else:
            embedding.embed(tokens.reshape(self.batch, self.time), 0, wte, wpe, x)
        if self.dropping:
            dropout.forward_values(flat(x), flat(self.mask), flat(x))
        outputs = [*(layer.x for layer in self.layers[1:]), self.x]
        for number, (layer, y) in enumerate(zip(self.layers, outputs, strict=True)):
            self.block_forward(layer, y, f"h.{number}")
        weight, bias = affine(step.params, "ln_f")
        layer_norm.forward_rows(
            self.x, weight, bias, self.config.norm_epsilon, self.normed, *self.norm
        )
        self.linear(self.normed, self.head, self.logits)

    def block_forward(self, layer: Layer, y: np.ndarray, h: str) -> None:
        """layer.x (N, C) -> y (N, C)."""
        params, team = self.step.params, self.step.team
        n_head, kv_heads = self.config.n_head, self.config.kv_heads
        mask = layer.attention_mask if self.dropping else attention.NO_MASK
        weight, bias = affine(params, f"{h}.ln_1")
        layer_norm.forward_rows(
            layer.x, weight, bias, self.config.norm_epsilon, layer.normed_1, *layer.norm_1
        )
        self.linear(layer.normed_1, f"{h}.attn.c_attn", layer.qkv)

        def attend(heads: slice) -> None:
            attention.forward_heads(
                layer.qkv, n_head, kv_heads, mask, layer.heads, layer.stats, heads.start,
                heads.stop, self.attention_scratch_of(team),
            )  # fmt: skip

        team.split(self.batch * kv_heads, 1, attend)
        masks = layer.masks if self.dropping else [None, None]
        self.residual(layer.x, layer.heads, f"{h}.attn.c_proj", masks[0], layer.mid)
        weight, bias = affine(params, f"{h}.ln_2")
        layer_norm.forward_rows(
            layer.mid, weight, bias, self.config.norm_epsilon, layer.normed_2, *layer.norm_2
        )
        self.linear(layer.normed_2, f"{h}.mlp.c_fc", layer.hidden)
        hidden, activated = flat(layer.hidden), flat(layer.activated)

        def activate(part: slice) -> None:
            self.gelu.forward_values(hidden[part], activated[part])

        team.split(len(hidden), ELEMENTS, activate)
        self.residual(layer.mid, layer.activated, f"{h}.mlp.c_proj", masks[1], y)

    def linear(self, x: np.ndarray, name: str, y: np.ndarray) -> None:
        """y (N, K) = x (N, C) · weight + bias; the matmul starts from the bias."""
        step, bias = self.step, self.step.params.get(f"{name}.bias")
        start = NOTHING if bias is None else bias[None]
        step.matmuls.forward(x, f"{name}.weight", start, y, self.scratch, step.team)

    def residual(
        self, x: np.ndarray, branch: np.ndarray, name: str, mask: np.ndarray | None, y: np.ndarray
    ) -> None:
        """y (N, C) = x + dropout(branch · weight + bias); without dropout in one matmul."""
        if mask is not None:
            self.linear(branch, name, self.branch)
            dropout.add_masked(flat(x), flat(self.branch), flat(mask), flat(y))
            return
        step, start, bias = self.step, x, self.step.params.get(f"{name}.bias")
        if bias is not None:
            linear.add_bias(x, bias, y)
            start = y
        step.matmuls.forward(branch, f"{name}.weight", start, y, self.scratch, step.team)

    def backward(self, dembedded: np.ndarray) -> None:
        """Write dembedded (N, C), and add to all other gradients; self.logits holds dlogits."""
        dx = self.dx  # (N, C)
        self.linear_backward(self.logits, self.normed, self.head, self.dnormed)
        dx.fill(0)
        self.layer_norm(self.dnormed, self.x, "ln_f", self.norm)
        for number in reversed(range(self.config.n_layer)):
            self.block_backward(self.layers[number], f"h.{number}")
        if self.dropping:
            dropout.forward_values(flat(dx), flat(self.mask), flat(dembedded))
        else:
            dembedded[...] = dx

    def block_backward(self, layer: Layer, h: str) -> None:
        """Turn self.dx (N, C) from the gradient of the block's output into that of its input."""
        team, dx, dhidden = self.step.team, self.dx, self.dhidden
        n_head, kv_heads = self.config.n_head, self.config.kv_heads
        dout_2 = self.dropped(layer.masks[1]) if self.dropping else dx  # (N, C)
        self.linear_backward(dout_2, layer.activated, f"{h}.mlp.c_proj", dhidden)
        dvalues, values = flat(dhidden), flat(layer.hidden)

        def activate_backward(part: slice) -> None:
            self.gelu.backward_values(dvalues[part], values[part], dvalues[part])

        team.split(len(values), ELEMENTS, activate_backward)
        self.linear_backward(dhidden, layer.normed_2, f"{h}.mlp.c_fc", self.dnormed)
        # Fused: dx, which holds the gradient of the residual path, is added to.
        self.layer_norm(self.dnormed, layer.mid, f"{h}.ln_2", layer.norm_2)
        dout_1 = self.dropped(layer.masks[0]) if self.dropping else dx  # (N, C)
        self.linear_backward(dout_1, layer.heads, f"{h}.attn.c_proj", self.dnormed)
        mask = layer.attention_mask if self.dropping else attention.NO_MASK

        def attend_backward(heads: slice) -> None:
            attention.backward_heads(
                self.dnormed, layer.qkv, n_head, kv_heads, mask, layer.stats, self.dqkv,
                heads.start, heads.stop, self.attention_scratch_of(team),
            )  # fmt: skip

        # A thread has all queries of a head of keys and values, whose gradients it adds in order.
        team.split(self.batch * kv_heads, 1, attend_backward)
        self.linear_backward(self.dqkv, layer.normed_1, f"{h}.attn.c_attn", self.dnormed)
        self.layer_norm(self.dnormed, layer.x, f"{h}.ln_1", layer.norm_1)

    def linear_backward(self, dy: np.ndarray, x: np.ndarray, name: str, dx: np.ndarray) -> None:
        """dy (N, K), x (N, C) -> dx (N, C); adds to the gradients of weight and bias.

        Even micro-batches add a weight's gradient before they compute dx, odd ones after, so that
        two that run in step with each other do not wait.
        """
        step = self.step
        # The weight of the head is transposed.
        factors = (dy, x) if name == self.head else (x, dy)

        def gradient() -> None:
            self.add_gradient(*factors, name)

        def backward() -> None:
            step.matmuls.backward(dy, f"{name}.weight", dx, self.scratch, step.team)

        for job in (gradient, backward) if self.number % 2 == 0 else (backward, gradient):
            job()

    def add_gradient(self, x: np.ndarray, dy: np.ndarray, name: str) -> None:
        """Add xᵀ dy to the gradient of a weight, and the column sums of dy to that of its bias."""
        step, is_first = self.step, self.number == 0
        dweight, dbias = step.grads[f"{name}.weight"], step.grads.get(f"{name}.bias")

        def add() -> None:
            start = NOTHING if is_first else dweight
            step.matmuls.gradient(x, dy, start, dweight, self.scratch, step.team)
            if dbias is not None:
                if is_first:
                    dbias.fill(0)
                linear.add_column_sums(dy, dbias)

        step.region.ordered(name, self.number, add)

    def layer_norm(
        self, dy: np.ndarray, x: np.ndarray, name: str, norm: tuple[np.ndarray, ...]
    ) -> None:
        """Add to self.dx and to the gradients of a layer norm's weight and bias."""
        weight, _ = affine(self.step.params, name)
        dweight, dbias = affine(self.step.grads, name)

        def add() -> None:
            if self.number == 0:
                dweight.fill(0)
                dbias.fill(0)
            layer_norm.backward_rows(dy, x, weight, *norm, self.dx, dweight, dbias)

        self.step.region.ordered(name, self.number, add)

    def attention_scratch_of(self, team: ThreadTeam) -> attention.Scratch:
        """Return attention scratch for this thread: the micro-batch's own unless work is split."""
        if team.size == 1:
            return self.attention_scratch
        size = self.config.n_embd // self.config.n_head
        return workspace.get(attention.make_scratch, self.time, size)

    def dropped(self, mask: np.ndarray) -> np.ndarray:
        """Return self.dx · mask."""
        dropout.forward_values(flat(self.dx), flat(mask), flat(self.branch))
        return self.branch

    def draw_masks(self, key: int, first: int) -> None:
        """Fill this micro-batch's part of the masks that draw_masks draws for a whole batch."""
        masks = [self.mask]
        for layer in self.layers:
            masks += [layer.attention_mask, *layer.masks]
        for number, mask in enumerate(masks):
            start = mask.size // self.batch * first
            dropout.fill_mask(flat(mask), self.config.dropout, mask_key(key, number), start)


def draw_masks(config: GPTConfig, batch: int, time: int, key: int) -> Tensors:
    """Return the masks of a whole batch that a key stands for, as GPT.forward takes them."""
    shapes = mask_shapes(config, batch, time)
    masks = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for number, mask in enumerate(masks.values()):
        dropout.fill_mask(flat(mask), config.dropout, mask_key(key, number), 0)
    return masks


def mask_key(key: int, number: int) -> np.uint64:
    """Return the key of one of a step's masks."""
    return np.uint64((key + number * KEY_STEP) % 2**64)


def affine(tensors: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias of a layer; the bias is (0,) if there is none."""
    return tensors[f"{name}.weight"], tensors.get(f"{name}.bias", NO_BIAS)


def flat(array: np.ndarray) -> np.ndarray:
    """Return a flat view."""
    return array.reshape(-1)
