"""One micro-batch through the compiled GPT: the calls of model/gpt.py, in buffers made once.

The calls come in the model's order; comments say where several are fused. They are recorded once
and then played, without the GIL (recording.py). So what differs between steps, such as tokens and
keys of dropout masks, is copied into arrays that kernels read. Gradients are added to those of
earlier micro-batches, in the order of their numbers (`add`), so the sums have the same bits on any
number of threads and no gradient is stored per micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt_np.compiled.kernels import (
    cross_entropy,
    dropout,
    elementwise,
    embedding,
    linear,
    soft_cap,
)
from tinygpt_np.compiled.matmuls import NOTHING, Matmuls
from tinygpt_np.compiled.operations import ELEMENTS, FORWARD, Activation, Attention, Norm
from tinygpt_np.compiled.recording import Recorder, Recordings, Team
from tinygpt_np.compiled.simd.barrier import end_turn, wait_for_turn
from tinygpt_np.compiled.simd.memory import Arena
from tinygpt_np.compiled.threads import ALONE, ParallelRegion, ThreadTeam
from tinygpt_np.config import GPTConfig
from tinygpt_np.storage.parameters import Tensors, mask_shapes

# Recordings that a micro-batch keeps: three for each of the arrays that a step adds gradients in,
# of which there are a few more than the logarithm of the number of its batches.
MOST_RECORDINGS = 64


@dataclass(frozen=True)
class Step:
    """Arrays and settings that all micro-batches of a step share.

    They belong to one batch of the step, whose number among those that run together is `batch` and
    which is split into `count` micro-batches. grads are added to. dembedded (B·T, C) is the
    gradient of the embedding's output, of which each micro-batch writes its own rows. scale is 1 /
    the number of targets that count. dropout_key is None for no dropout; `first` is the number of
    the batch's first sequence in the step. team are the threads that split the operations of a
    micro-batch, which are not if they are recorded. places are those of the layers in the region.
    done is called with the name of a parameter when its gradient is complete.
    """

    params: Tensors
    grads: Tensors
    dembedded: np.ndarray
    matmuls: Matmuls
    region: ParallelRegion
    places: dict[str, int]
    scale: float
    dropout_key: int | None
    team: ThreadTeam = ALONE
    recorded: bool = True
    batch: int = 0
    count: int = 1
    first: int = 0
    done: Callable[[str], None] | None = None


def places(params: Tensors) -> dict[str, int]:
    """Return the places at which micro-batches take turns: one for each layer, by its name."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in params)
    return {layer: place for place, layer in enumerate(layers)}


class Layer:
    """Activations that a block saves for its backward, N rows."""

    def __init__(self, config: GPTConfig, norm: Norm, attention: Attention, arena: Arena) -> None:
        N, C, zeros = attention.batch * attention.time, config.n_embd, arena.zeros
        self.x, self.normed_1 = zeros(N, C), zeros(N, C)
        self.qkv, self.heads = zeros(N, config.qkv_width), zeros(N, C)
        self.mid, self.normed_2 = zeros(N, C), zeros(N, C)
        self.hidden = zeros(N, config.hidden_width)
        self.activated = zeros(N, config.inner_width)
        self.norm_1, self.norm_2 = (norm.make_stats(N, arena) for _ in range(2))
        self.attention = attention.make_state(arena)
        self.masks = [zeros(N, C), zeros(N, C)] if config.dropout else []


class MicroBatch:
    """Forward and backward of `batch` sequences of `time` tokens, in buffers of their own."""

    step: Step
    team: Team
    number: int
    dropping: bool

    def __init__(self, config: GPTConfig, batch: int, time: int) -> None:
        self.config, self.batch, self.time = config, batch, time
        self.head = config.head_name.removesuffix(".weight")
        arena = Arena()
        N, C, zeros = batch * time, config.n_embd, arena.zeros
        self.norm, self.activation = Norm(config), Activation(config)
        self.attention = Attention(config, batch, time, arena)
        self.layers = [
            Layer(config, self.norm, self.attention, arena) for _ in range(config.n_layer)
        ]
        self.x, self.normed, self.dx, self.dnormed, self.branch = (zeros(N, C) for _ in range(5))
        self.dqkv, self.dactivated = zeros(N, config.qkv_width), zeros(N, config.inner_width)
        self.logits = zeros(N, config.vocab_size)
        self.capped = zeros(N if config.logit_soft_cap else 0, config.vocab_size)
        self.norm_f = self.norm.make_stats(N, arena)
        self.tokens, self.targets = np.zeros((2, batch, time), np.int64)
        self.losses, self.scale = np.zeros(N), np.zeros(1, np.float32)
        self.draw = np.zeros(2, np.uint64)  # A step's key of dropout, and the first sequence.
        self.mask = zeros(N if config.dropout else 0, C)
        self.scratch = self.attention.scratch.matmul
        self.frame = np.zeros(4, np.int64)  # Its turns, for kernels; see simd/barrier.py.
        self.recordings = Recordings(MOST_RECORDINGS)

    def loss(self, tokens: np.ndarray, targets: np.ndarray, step: Step) -> float:
        """tokens, targets (B, T) -> the sum of their losses, without dropout."""
        self.begin(tokens, targets, step, 0, dropping=False)
        self.play(self.forward_to_loss, (), step.params, step.matmuls)
        return float(self.losses.sum())

    def loss_and_grads(
        self, tokens: np.ndarray, targets: np.ndarray, step: Step, number: int, first: int
    ) -> float:
        """tokens, targets (B, T) -> the sum of their losses; adds to step.grads.

        `number` is that of the micro-batch, `first` that of its first sequence, in the batch.
        """
        dropping = bool(self.config.dropout) and step.dropout_key is not None
        self.begin(tokens, targets, step, number, dropping)
        self.scale[0] = step.scale
        self.draw[0], self.draw[1] = step.dropout_key or 0, step.first + first
        kind = number == 0, number % 2
        self.play(self.forward_and_backward, kind, step.params, step.matmuls, *step.grads.values())
        dx, dembedded = flat(self.dx), flat(step.dembedded[first * self.time :][: tokens.size])
        if dropping:
            dropout.forward_values(dx, flat(self.mask), dembedded)
        else:
            dembedded[...] = dx
        return float(self.losses.sum())

    def begin(
        self, tokens: np.ndarray, targets: np.ndarray, step: Step, number: int, dropping: bool
    ) -> None:
        """Begin a micro-batch of a step."""
        self.step, self.team, self.number, self.dropping = step, step.team, number, dropping
        self.tokens[...], self.targets[...] = tokens, targets
        self.frame[:] = step.region.frame(number, step.batch * len(step.places))

    def play(self, job: Callable[[], None], kind: tuple[Any, ...], *sources: object) -> None:
        """Do a job of this micro-batch, by its recording.

        kind: what the calls depend on; sources: what holds arrays that are not of this micro-batch.
        """
        if not self.step.recorded:
            job()
            return

        def record(recorder: Recorder) -> None:
            self.team = recorder
            job()
            self.team = self.step.team

        kind = job.__name__, self.dropping, *kind
        waits = self.step.done and self.number == self.step.count - 1
        recording = self.recordings.get(record, kind, *sources)
        recording.play(self.step.region, self.announce if waits else None)

    def forward_to_loss(self) -> None:
        """self.tokens, self.targets (B, T) -> self.losses (N,)."""
        self.forward()
        # Only the losses are used. A kernel without the gradient would have to be compiled, too.
        self.replace_logits()

    def forward_and_backward(self) -> None:
        """self.tokens, self.targets (B, T) -> self.losses (N,), self.dx; adds to all gradients."""
        if self.dropping:
            self.draw_masks()
        self.forward()
        self.replace_logits()
        self.backward()

    def replace_logits(self) -> None:
        """Replace self.logits (N, V) by their gradient, and write self.losses (N,)."""
        cap, team, targets = float(self.config.logit_soft_cap), self.team, flat(self.targets)

        def replace(rows: slice) -> None:
            logits, capped = self.logits[rows], flat(self.capped[rows])
            if cap:
                team.call(elementwise.copy, flat(logits), capped)
            # Fused: softmax, loss and dlogits.
            losses = self.losses[rows]
            team.call(cross_entropy.loss_and_dlogits, logits, targets[rows], self.scale, losses)
            if cap:
                team.call(soft_cap.backward_values, flat(logits), capped, cap, flat(logits))

        team.split(len(self.logits), 1, replace, FORWARD * self.logits.size)

    def forward(self) -> None:
        """self.tokens (B, T) -> self.logits (N, V)."""
        params, team, x = self.step.params, self.team, self.layers[0].x  # (N, C)
        wte, wpe = params["wte.weight"], params.get("wpe.weight")
        if wpe is None:
            team.call(embedding.forward_rows, flat(self.tokens), wte, x)
        else:
            team.call(embedding.embed, self.tokens, 0, wte, wpe, x)
        if self.dropping:
            team.call(dropout.forward_values, flat(x), flat(self.mask), flat(x))
        outputs = [*(layer.x for layer in self.layers[1:]), self.x]
        for number, (layer, y) in enumerate(zip(self.layers, outputs, strict=True)):
            self.block_forward(layer, y, f"h.{number}")
        self.normalize(self.x, "ln_f", self.norm_f, self.normed)
        self.linear(self.normed, self.head, self.logits)
        if cap := float(self.config.logit_soft_cap):
            logits = flat(self.logits)
            team.split(
                len(logits), ELEMENTS,
                lambda part: team.call(soft_cap.forward_values, logits[part], cap, logits[part]),
                FORWARD * logits.size,
            )  # fmt: skip

    def block_forward(self, layer: Layer, y: np.ndarray, h: str) -> None:
        """layer.x (N, C) -> y (N, C)."""
        team, masks = self.team, layer.masks if self.dropping else [None, None]
        self.normalize(layer.x, f"{h}.ln_1", layer.norm_1, layer.normed_1)
        self.linear(layer.normed_1, f"{h}.attn.c_attn", layer.qkv)
        self.attention.forward(layer.qkv, self.dropping, layer.heads, layer.attention, team)
        self.residual(layer.x, layer.heads, f"{h}.attn.c_proj", masks[0], layer.mid)
        self.normalize(layer.mid, f"{h}.ln_2", layer.norm_2, layer.normed_2)
        self.linear(layer.normed_2, f"{h}.mlp.c_fc", layer.hidden)
        self.activation.forward(layer.hidden, layer.activated, team)
        self.residual(layer.mid, layer.activated, f"{h}.mlp.c_proj", masks[1], y)

    def linear(self, x: np.ndarray, name: str, y: np.ndarray) -> None:
        """y (N, K) = x (N, C) · weight + bias; the matmul starts from the bias."""
        step, bias = self.step, self.step.params.get(f"{name}.bias")
        start = NOTHING if bias is None else bias[None]
        step.matmuls.forward(x, f"{name}.weight", start, y, self.scratch, self.team)

    def residual(
        self, x: np.ndarray, branch: np.ndarray, name: str, mask: np.ndarray | None, y: np.ndarray
    ) -> None:
        """y (N, C) = x + dropout(branch · weight + bias); without dropout in one matmul."""
        if mask is not None:
            self.linear(branch, name, self.branch)
            self.team.call(dropout.add_masked, flat(x), flat(self.branch), flat(mask), flat(y))
            return
        step, start, bias = self.step, x, self.step.params.get(f"{name}.bias")
        if bias is not None:
            self.team.call(linear.add_bias, x, bias, y)
            start = y
        step.matmuls.forward(branch, f"{name}.weight", start, y, self.scratch, self.team)

    def backward(self) -> None:
        """Write self.dx (N, C), and add to all gradients but those of the embedding's output.

        self.logits (N, V) holds dlogits.
        """
        self.linear_backward(self.logits, self.normed, self.head, self.dnormed)
        self.team.call(elementwise.clear, flat(self.dx))
        self.normalize_backward(self.dnormed, self.x, "ln_f", self.norm_f)
        for number in reversed(range(self.config.n_layer)):
            self.block_backward(self.layers[number], f"h.{number}")

    def block_backward(self, layer: Layer, h: str) -> None:
        """Turn self.dx (N, C) from the gradient of the block's output into that of its input."""
        team, dnormed, dqkv = self.team, self.dnormed, self.dqkv
        dout_2 = self.dropped(layer.masks[1]) if self.dropping else self.dx  # (N, C)
        self.linear_backward(dout_2, layer.activated, f"{h}.mlp.c_proj", self.dactivated)
        dhidden = self.activation.backward(self.dactivated, layer.hidden, team)  # (N, F) or (N, 2F)
        self.linear_backward(dhidden, layer.normed_2, f"{h}.mlp.c_fc", dnormed)
        # Fused: dx, which holds the gradient of the residual path, is added to.
        self.normalize_backward(dnormed, layer.mid, f"{h}.ln_2", layer.norm_2)
        dout_1 = self.dropped(layer.masks[0]) if self.dropping else self.dx  # (N, C)
        dheads = dnormed  # (N, C)
        self.linear_backward(dout_1, layer.heads, f"{h}.attn.c_proj", dheads)
        self.attention.backward(dheads, layer.qkv, self.dropping, layer.attention, dqkv, team)
        self.linear_backward(dqkv, layer.normed_1, f"{h}.attn.c_attn", dnormed)
        self.normalize_backward(dnormed, layer.x, f"{h}.ln_1", layer.norm_1)

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
            step.matmuls.backward(dy, f"{name}.weight", dx, self.scratch, self.team)

        for job in (gradient, backward) if self.number % 2 == 0 else (backward, gradient):
            job()

    def add_gradient(self, x: np.ndarray, dy: np.ndarray, name: str) -> None:
        """Add xᵀ dy to the gradient of a weight, and the column sums of dy to that of its bias."""
        step, team, is_first = self.step, self.team, self.number == 0
        dweight, dbias = step.grads[f"{name}.weight"], step.grads.get(f"{name}.bias")

        def add() -> None:
            start = NOTHING if is_first else dweight
            step.matmuls.gradient(x, dy, start, dweight, self.scratch, self.team)
            if dbias is not None:
                if is_first:
                    team.call(elementwise.clear, dbias)
                team.call(linear.add_column_sums, dy, dbias)

        self.add(name, add)

    def normalize(self, x: np.ndarray, name: str, stats: list[np.ndarray], y: np.ndarray) -> None:
        """x (N, C) -> y (N, C), stats, by the norm called `name`."""
        self.norm.forward(x, self.norm.affine(self.step.params, name), y, stats, self.team)

    def normalize_backward(
        self, dy: np.ndarray, x: np.ndarray, name: str, stats: list[np.ndarray]
    ) -> None:
        """Add to self.dx and to the gradients of a norm's weight and bias."""
        norm, step, team = self.norm, self.step, self.team
        affine, daffine = norm.affine(step.params, name), norm.affine(step.grads, name)

        def add() -> None:
            if self.number == 0:
                for grad in daffine:
                    team.call(elementwise.clear, grad)
            norm.backward(dy, x, affine, stats, self.dx, daffine, team)

        self.add(name, add)

    def add(self, layer: str, section: Callable[[], None]) -> None:
        """Add to the gradients of a layer, when it is this micro-batch's turn to do so."""
        frame, place = self.frame.ctypes.data, self.step.places[layer]
        self.team.call(wait_for_turn, frame, place)
        self.step.region.check()
        section()
        self.team.call(end_turn, frame, place)
        if isinstance(self.team, Recorder):
            self.team.mark(layer)
        else:
            self.announce(layer)

    def announce(self, layer: str) -> None:
        """Say that the gradients of a layer are complete, if this micro-batch is the last one."""
        step = self.step
        # The embedding adds to the weight that it shares with a tied head.
        if step.done and self.number == step.count - 1 and layer != "wte":
            for name in (f"{layer}.weight", f"{layer}.bias"):
                if name in step.grads:
                    step.done(name)

    def dropped(self, mask: np.ndarray) -> np.ndarray:
        """Return self.dx · mask."""
        self.team.call(dropout.forward_values, flat(self.dx), flat(mask), flat(self.branch))
        return self.branch

    def draw_masks(self) -> None:
        """Fill this micro-batch's part of the masks that draw_masks draws for a whole step."""
        masks, p = [self.mask], float(self.config.dropout)
        for layer in self.layers:
            masks += [layer.attention.mask, *layer.masks]
        for number, mask in enumerate(masks):
            size = mask.size // self.batch
            self.team.call(dropout.fill_part, flat(mask), p, self.draw, number, size)


def buffer_size(config: GPTConfig, rows: int) -> int:
    """Return about how many numbers a MicroBatch of this many rows holds, without scratch."""
    C, E, F, V = config.n_embd, config.qkv_width, config.inner_width, config.vocab_size
    masks = 2 * C + config.n_head * config.block_size if config.dropout else 0
    block = 5 * C + E + config.hidden_width + F + masks
    others = 5 * C + E + F + V + (C if config.dropout else 0) + (V if config.logit_soft_cap else 0)
    return rows * (config.n_layer * block + others)


def draw_masks(config: GPTConfig, batch: int, time: int, key: int) -> Tensors:
    """Return the masks of a whole batch that a key stands for, as GPT.forward takes them."""
    shapes = mask_shapes(config, batch, time)
    masks = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    draw = np.array([key, 0], np.uint64)
    for number, mask in enumerate(masks.values()):
        dropout.fill_part(flat(mask), float(config.dropout), draw, number, 0)
    return masks


def flat(array: np.ndarray) -> np.ndarray:
    """Return a flat view."""
    return array.reshape(-1)
