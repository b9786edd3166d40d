# PyTorch is in no environment that the type checker runs in.
# pyright: basic, reportMissingImports=false
"""Generation from a GPT-2 checkpoint by transformers: its cached generate, eager."""

import warnings

from benchmarks.models.gpt2 import flops, prompt_of
from benchmarks.worker.jobs import Job

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from transformers import GPT2LMHeadModel


def generate(folder: str, prompt: int, count: int, threads: int) -> Job:
    """Return a job that generates `count` tokens after a prompt, greedily."""
    torch.set_num_threads(threads)
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    given = torch.from_numpy(prompt_of(prompt))[None]
    mask = torch.ones_like(given)

    def step() -> list[int]:
        with torch.inference_mode():
            made = model.generate(
                given, attention_mask=mask, max_new_tokens=count, do_sample=False, use_cache=True,
                pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
        return made[0, prompt:].tolist()

    return Job(step, flops(prompt, count), agreement=list)
