# PyTorch is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""PyTorch's side: the GPT in plain PyTorch, laid out as nanoGPT's is, trained and sampled from, and
its attention alone.

No biases, no dropout, tied head. Fast in the ways that PyTorch offers: fused attention, fused
AdamW (a third of the time of its default form, at the work cpu), gradients set to None, and
torch.compile.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks import works
from benchmarks.worker import WARM_UP_STEPS, Job
from benchmarks.works import Work

EPSILON = 1e-5


class LayerNorm(nn.Module):
    """PyTorch's own, without the bias."""

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, EPSILON)


class Attention(nn.Module):
    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(attend(self.c_attn(x), self.n_head))


def attend(qkv: torch.Tensor, n_head: int) -> torch.Tensor:
    """qkv (B, T, 3C) -> y (B, T, C): causal attention by PyTorch's fused kernel."""
    batch, time, width = qkv.shape
    heads = (batch, time, n_head, width // 3 // n_head)
    q, k, v = (part.view(heads).transpose(1, 2) for part in qkv.split(width // 3, dim=2))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
    return y.transpose(1, 2).reshape(batch, time, width // 3)


class MLP(nn.Module):
    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.c_proj = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.ln_1, self.attn = LayerNorm(n_embd), Attention(n_embd, n_head)
        self.ln_2, self.mlp = LayerNorm(n_embd), MLP(n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Parameters are named as ours are; ours lie (in, out), those of nn.Linear (out, in)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.wte = nn.Embedding(work.vocab_size, work.n_embd)
        self.wpe = nn.Embedding(work.block_size, work.n_embd)
        self.h = nn.ModuleList(Block(work.n_embd, work.n_head) for _ in range(work.n_layer))
        self.ln_f = LayerNorm(work.n_embd)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """tokens, targets (B, T) -> the mean cross-entropy."""
        logits = F.linear(self.read(tokens), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, T) -> what the head sees of each, (B, T, C)."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, T) -> logits (B, V) of the token after; only the last row is asked for."""
        return F.linear(self.read(tokens)[:, -1], self.wte.weight)

    @torch.inference_mode()
    def generate(self, tokens: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """tokens (B, T) -> `count` tokens (B, 1) that follow, as nanoGPT's generate draws them."""
        for _ in range(count):
            window = tokens[:, -self.wpe.num_embeddings :]
            probs = F.softmax(self.next_logits(window), dim=-1)
            drawn = torch.multinomial(probs, num_samples=1)
            tokens = torch.cat((tokens, drawn), dim=1)
            yield drawn

    def take(self, params: dict[str, np.ndarray]) -> None:
        """Takes over weights in our layout."""
        linear = {name for name, module in self.named_modules() if isinstance(module, nn.Linear)}
        with torch.no_grad():
            for name, param in self.named_parameters():
                weight = torch.from_numpy(params[name])
                param.copy_(weight.T if name.removesuffix(".weight") in linear else weight)


def train(work: dict[str, Any], threads: int, compiled: bool) -> Job:
    """The training step of a work (the fields of a Work), eager or through torch.compile."""
    torch.set_num_threads(threads)
    sizes = Work(**work)
    model = GPT(sizes)
    model.take(works.initial_params(sizes))
    loss_of: Any = torch.compile(model) if compiled else model
    params = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params if p.dim() >= 2], "weight_decay": works.WEIGHT_DECAY},
            {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=works.LEARNING_RATE,
        betas=(works.BETA1, works.BETA2),
        fused=True,
    )
    batches = works.batches(sizes)

    def draw() -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(part) for part in next(batches))

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = loss_of(tokens, targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(params, works.GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss, norm

    return Job(works.step_flops(sizes), draw, step, lambda returned: [v.item() for v in returned])


def sample(work: dict[str, Any], tokens: int, threads: int) -> Job:
    """Sampling texts of so many tokens, from a prompt of one; a step is one token."""
    torch.set_num_threads(threads)
    sizes = Work(**work)
    model = GPT(sizes).eval()
    model.take(works.sampling_params(sizes))
    prompt = torch.zeros((1, 1), dtype=torch.int64)

    def text() -> Iterator[torch.Tensor]:
        torch.manual_seed(works.SEED)
        return model.generate(prompt, tokens)

    for _ in text():  # Warms up.
        pass
    stream = works.texts_on_end(text, WARM_UP_STEPS)

    def agreement(_: torch.Tensor) -> list[float]:
        with torch.inference_mode():
            logits = [model.next_logits(torch.from_numpy(text)) for text in works.windows(sizes)]
        return [works.norms([each.numpy()])[0] for each in logits]

    return Job(0.0, lambda: (), lambda: next(stream), agreement)


def attention(sizes: dict[str, int], threads: int, from_qkv: bool) -> Job:
    """Causal attention, forward and backward, of the sizes of works.attention_inputs.

    from_qkv: from one array and back to one, as a model has it and as ours does; otherwise from q,
    k and v that lie apart, heads first, which spares PyTorch the copies.
    """
    torch.set_num_threads(threads)
    batch, time, n_head, head_size = (sizes[name] for name in works.ATTENTION)
    width = n_head * head_size
    qkv, dy = (torch.from_numpy(array) for array in works.attention_inputs(**sizes))
    if from_qkv:
        inputs = [qkv.view(batch, time, 3 * width)]
        doutput = dy.view(batch, time, width)
    else:
        inputs = [split_heads(part, batch, n_head) for part in qkv.split(width, dim=1)]
        doutput = split_heads(dy, batch, n_head)
    for tensor in inputs:
        tensor.requires_grad_()

    def step() -> tuple[torch.Tensor, ...]:
        for tensor in inputs:
            tensor.grad = None
        if from_qkv:
            y = attend(inputs[0], n_head)
        else:
            y = F.scaled_dot_product_attention(*inputs, is_causal=True)
        y.backward(doutput)
        return y, *(tensor.grad for tensor in inputs)

    def agreement(returned: tuple[torch.Tensor, ...]) -> list[float]:
        y, *gradients = (tensor.detach().numpy() for tensor in returned)
        return works.norms([y], gradients)

    flops = works.attention_flops(width, time, batch * time)
    return Job(flops, lambda: (), step, agreement)


def split_heads(rows: torch.Tensor, batch: int, n_head: int) -> torch.Tensor:
    """rows (N, C) -> heads (B, H, T, D), in an order of its own."""
    return rows.reshape(batch, -1, n_head, rows.shape[1] // n_head).transpose(1, 2).contiguous()
