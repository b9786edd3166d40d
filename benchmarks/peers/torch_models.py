# PyTorch is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""The GPT in plain PyTorch, laid out as nanoGPT's: training, sampling, and attention alone.

No biases, no dropout, tied head. It uses what PyTorch offers for speed: fused attention, fused
AdamW (a third of the time of its default form for the workload cpu), gradients set to None,
torch.compile.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.models import workloads
from benchmarks.models.workloads import Workload
from benchmarks.worker.jobs import WARM_UP_STEPS, Job
from benchmarks.worker.training import Run
from tinygpt_np.config import GPTConfig, TrainConfig, generator
from tinygpt_np.model import gpt
from tinygpt_np.model.optimizer import learning_rate_at
from tinygpt_np.text import batches, dataset


class Attention(nn.Module):
    """Causal self-attention with its two linear layers."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y (B, T, C) for x (B, T, C)."""
        return self.c_proj(attend(self.c_attn(x), self.n_head))


def attend(qkv: torch.Tensor, n_head: int, n_kv_head: int | None = None) -> torch.Tensor:
    """Return y (B, T, C) for qkv (B, T, E): causal attention by PyTorch's fused kernel."""
    y = fused(*heads_of(qkv, n_head, n_kv_head or n_head))  # (B, H, T, D)
    return y.transpose(1, 2).reshape(*qkv.shape[:2], -1)


def heads_of(qkv: torch.Tensor, n_head: int, n_kv_head: int) -> list[torch.Tensor]:
    """Return q (B, H, T, D), k and v (B, J, T, D) as views of qkv (B, T, E)."""
    counts = [n_head, n_kv_head, n_kv_head]
    heads = qkv.view(*qkv.shape[:2], sum(counts), -1)
    return [part.transpose(1, 2) for part in heads.split(counts, dim=2)]


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return causal attention (B, H, T, D) by PyTorch's fused kernel."""
    grouped = q.shape[1] > k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, bias=False)
        self.attn = Attention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd, bias=False)
        layers = {
            "c_fc": nn.Linear(n_embd, 4 * n_embd, bias=False),
            "gelu": nn.GELU(approximate="tanh"),
            "c_proj": nn.Linear(4 * n_embd, n_embd, bias=False),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y (B, T, C) for x (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The model; its parameters are named like ours, which are (in, out) instead of (out, in)."""

    def __init__(self, work: Workload | GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(work.vocab_size, work.n_embd)
        self.wpe = nn.Embedding(work.block_size, work.n_embd)
        self.h = nn.ModuleList(Block(work.n_embd, work.n_head) for _ in range(work.n_layer))
        self.ln_f = nn.LayerNorm(work.n_embd, bias=False)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy of tokens and targets (B, T)."""
        logits = F.linear(self.read(tokens), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states (B, T, C) of tokens (B, T)."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, V) of the next token after tokens (B, T)."""
        return F.linear(self.read(tokens)[:, -1], self.wte.weight)

    @torch.inference_mode()
    def generate(self, tokens: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """Yield `count` next tokens (B, 1) after tokens (B, T), drawn as by nanoGPT's generate."""
        for _ in range(count):
            context = tokens[:, -self.wpe.num_embeddings :]
            probs = F.softmax(self.next_logits(context), dim=-1)
            drawn = torch.multinomial(probs, num_samples=1)
            tokens = torch.cat((tokens, drawn), dim=1)
            yield drawn

    def load(self, params: dict[str, np.ndarray]) -> None:
        """Copy weights in our layout."""
        linear = {name for name, module in self.named_modules() if isinstance(module, nn.Linear)}
        weights = {
            name: torch.from_numpy(param.T if name.removesuffix(".weight") in linear else param)
            for name, param in params.items()
        }
        self.load_state_dict(weights)


Step = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def training_step(
    model: GPT, loss_of: Any, optimizer: torch.optim.Optimizer, grad_clip: float
) -> Step:
    """Return a step on tokens and targets: it gives the loss, and the norm before clipping."""
    params = list(model.parameters())

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = loss_of(tokens, targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(params, grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, norm

    return step


def adamw(
    model: GPT, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """Return AdamW, which decays matrices only."""
    params = list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [param for param in params if param.dim() >= 2]},
            {"params": [param for param in params if param.dim() < 2], "weight_decay": 0.0},
        ],
        learning_rate, betas, weight_decay=weight_decay, fused=True,
    )  # fmt: skip


def train(workload: dict[str, Any], threads: int, compiled: bool) -> Job:
    """Return the training step of a workload, eager or through torch.compile."""
    torch.set_num_threads(threads)
    sizes = Workload(**workload)
    model = GPT(sizes)
    model.load(workloads.initial_params(sizes))
    betas = (workloads.BETA1, workloads.BETA2)
    optimizer = adamw(model, workloads.LEARNING_RATE, betas, workloads.WEIGHT_DECAY)
    loss_of: Any = torch.compile(model) if compiled else model
    step = training_step(model, loss_of, optimizer, workloads.GRAD_CLIP)
    batches = workloads.batches(sizes)

    def draw() -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(part) for part in next(batches))

    def agreement(returned: tuple[torch.Tensor, ...]) -> list[float]:
        return [value.item() for value in returned]

    return Job(step, workloads.step_flops(sizes), draw, agreement)


def run(config: dict[str, Any], compiled: bool) -> Run:
    """Return a training run with the weights, batches and schedule of ours.

    The configuration must be of nanoGPT's architecture and optimizer, without biases and dropout.
    """
    settings = TrainConfig(**config)
    torch.set_num_threads(settings.threads)
    data, rng = dataset.load(settings), generator(settings.seed, "data")
    shape = settings.gpt(data.tokenizer.vocab_size)
    model = GPT(shape)
    model.load(gpt.initial_params(shape, settings.seed, np.dtype("float32")))
    loss_of: Any = torch.compile(model) if compiled else model
    betas = (settings.beta1, settings.beta2)
    optimizer = adamw(model, settings.learning_rate, betas, settings.weight_decay)
    step = training_step(model, loss_of, optimizer, settings.grad_clip)
    taken = 0

    def draw(rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        batch = batches.random_batch(data.train, settings.batch_size, settings.block_size, rng)
        return tuple(torch.from_numpy(part) for part in batch)

    def train(steps: int) -> None:
        nonlocal taken
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(taken, settings)
            step(*draw(rng))
            taken += 1

    @torch.inference_mode()
    def evaluate() -> float:
        total = 0.0
        for tokens, targets in batches.sequences(data.val, settings.block_size):
            loss = model(torch.from_numpy(tokens), torch.from_numpy(targets))
            total += loss.item() * targets.size
        return total / (len(data.val) - 1)

    # Compiles, and changes neither the weights nor the batches to come.
    loss_of(*draw(generator(settings.seed, "init"))).backward()
    optimizer.zero_grad(set_to_none=True)
    return Run(settings.max_iters, train, evaluate)


def sample(workload: dict[str, Any], tokens: int, threads: int) -> Job:
    """Return a job that samples sequences after a prompt of one token, token by token."""
    torch.set_num_threads(threads)
    sizes = Workload(**workload)
    model = GPT(sizes).eval()
    model.load(workloads.sampling_params(sizes))
    prompt = torch.zeros((1, 1), dtype=torch.int64)

    def generate() -> Iterator[torch.Tensor]:
        torch.manual_seed(workloads.SEED)
        return model.generate(prompt, tokens)

    for _ in generate():  # Warms up.
        pass
    stream = workloads.endless(generate, WARM_UP_STEPS)

    @torch.inference_mode()
    def agreement(_: torch.Tensor) -> list[float]:
        sequences = map(torch.from_numpy, workloads.sequences(sizes))
        return workloads.norms(*([model.next_logits(each).numpy()] for each in sequences))

    return Job(lambda: next(stream), agreement=agreement)


def attention(sizes: dict[str, int], threads: int, from_qkv: bool) -> Job:
    """Return causal attention, forward and backward, from one array as ours or from q, k and v."""
    torch.set_num_threads(threads)
    batch, time, n_head, n_kv_head, head_size = sizes.values()
    qkv, dy = (
        torch.from_numpy(array).view(batch, time, -1)
        for array in workloads.attention_inputs(**sizes)
    )
    if from_qkv:
        inputs, function = [qkv], partial(attend, n_head=n_head, n_kv_head=n_kv_head)
    else:  # Arrays (B, H, T, D) save PyTorch copies.
        parts = *heads_of(qkv, n_head, n_kv_head), *heads_of(dy, n_head, 0)[:1]
        *inputs, dy = (part.contiguous() for part in parts)
        function = fused
    for tensor in inputs:
        tensor.requires_grad_()

    def step() -> tuple[torch.Tensor, ...]:
        for tensor in inputs:
            tensor.grad = None
        y = function(*inputs)
        y.backward(dy)
        return y, *(tensor.grad for tensor in inputs)

    def agreement(returned: tuple[torch.Tensor, ...]) -> list[float]:
        y, *gradients = (tensor.detach().numpy() for tensor in returned)
        return workloads.norms([y], gradients)

    flops = workloads.attention_flops(n_head * head_size, time, batch * time)
    return Job(step, flops, agreement=agreement)
