"""Strange prompts, for a model of characters, of byte pairs and of pieces.

A text that is written after a prompt is compared with the likeliest characters by the logits of the
model, computed from the whole window for each of them.
"""

from pathlib import Path
from random import Random

import numpy as np
from campaign import bases
from campaign.case import Case, Check, Kind, Outcome, either, harmless, refused
from helpers.tiny_run import TEXT

from tinygpt_np import GPT
from tinygpt_np.text import tokenizers
from tinygpt_np.text.tokenizers import CharTokenizer, Tokenizer

MODELS = {"char": "runs/mine", "gpt2": "gpt", "sentencepiece": "runs/pieces"}
CHARACTERS = sorted(set(TEXT))


def build(folder: Path) -> None:
    bases.text(folder)
    bases.run(folder)
    bases.gpt2(folder)
    bases.pieces(folder)
    pieces = ["--tokenizer", "sentencepiece", "--tokenizer-path", "pieces"]
    bases.do(folder, "train", "--data", "text.txt", "--name", "pieces", *bases.TINY, *pieces)


def command(kind: str, prompt: str, *flags: str) -> list[str]:
    """A prompt behind an equals sign may begin with a hyphen."""
    model = ["--model", MODELS[kind]] if kind == "gpt2" else [MODELS[kind]]
    return ["sample", *model, f"--prompt={prompt}", *bases.SAMPLING, *flags]


def opened(folder: Path, kind: str) -> tuple[GPT, Tokenizer]:
    place = folder / MODELS[kind]
    if kind == "gpt2":
        return GPT.from_pretrained(place), tokenizers.load(place)
    place = place / "checkpoints" / "000002"
    return GPT.load(place), tokenizers.load(place)


def continues(folder: Path, kind: str, prompt: str, shown: str | None = None) -> Check:
    """Return a check that the output is the prompt and what the model finds likeliest after it."""
    model, tokenizer = opened(folder, kind)
    ids: list[int] = (tokenizer.encode(prompt) if prompt else tokenizer.start()).tolist()
    made: list[int] = []
    for _ in range(8):
        window = np.array([ids + made])[:, -model.block_size :]
        made.append(int(model.logits(window)[0, -1, : tokenizer.vocab_size].argmax()))
    expected = (prompt if shown is None else shown) + "".join(tokenizer.stream(made)) + "\n"

    def check(outcome: Outcome) -> str:
        found = outcome.stdout
        # A terminal's line ends are all one.
        return "" if found == expected else f"it should write {expected[-80:]!a}"

    return check


def written(folder: Path, kind: str, prompt: str, what: str) -> Case:
    return harmless(f"{what}, {kind}", command(kind, prompt), continues(folder, kind, prompt))


def empty(rng: Random, folder: Path) -> Case:
    return written(folder, rng.choice(list(MODELS)), "", "an empty prompt")


def known(rng: Random, folder: Path) -> Case:
    prompt = "".join(rng.choices(CHARACTERS, k=rng.randrange(1, 40)))
    return written(folder, rng.choice(list(MODELS)), prompt, f"the prompt {prompt[:20]!a}")


def white_space(rng: Random, folder: Path) -> Case:
    prompt = rng.choice([" ", "\n", "\n\n\n", " \n ", " " * 500, "\n" * 500])
    return written(folder, rng.choice(list(MODELS)), prompt, f"the prompt {prompt[:5]!a}")


def long(rng: Random, folder: Path) -> Case:
    prompt = "".join(rng.choices(CHARACTERS, k=rng.choice((9, 17, 300, 20_000, 100_000))))
    return written(folder, rng.choice(list(MODELS)), prompt, f"a prompt of {len(prompt):,}")


STRANGE = (
    *(
        "é",
        "🙂",
        "👨‍👩‍👧‍👦",
        "e\u0301",
        "\u202eabc",
        "\u200b",
        "\ufeff",
        "\uffff",
        "\U0010ffff",
        "中文",
    ),
    *("<|endoftext|>", "▁", "▅", "<0x0A>", "<s>", "</s>", "<unk>", "Ġ", "Ċ", "\x1b[31m"),
    *(
        "[bold]to[/bold]",
        "{}",
        "%s",
        "\\n",
        "--tokens",
        "-1",
        "$HOME",
        "'",
        '"',
        "`ls`",
        "\t",
        "\x85",
    ),
)


def strange_for_bytes(rng: Random, folder: Path) -> Case:
    prompt = "to " * rng.randrange(3) + rng.choice(STRANGE) * rng.choice((1, 1, 1, 50))
    return written(
        folder, rng.choice(("gpt2", "sentencepiece")), prompt, f"the prompt {prompt[:30]!a}"
    )


def line_ends(rng: Random, folder: Path) -> Case:
    prompt = rng.choice(["a\rb", "\r\n", "to be\r\nor not", "\r" * 9])
    return written(folder, "gpt2", prompt, f"the prompt {prompt!a}")


def unknown_character(rng: Random, folder: Path) -> Case:
    strange = [text for text in STRANGE if any(char not in CHARACTERS for char in text)]
    chosen = rng.choice(strange)
    first = next(char for char in chosen if char not in CHARACTERS)
    prompt = "be " * rng.randrange(4) + chosen
    return refused(f"the prompt {prompt!a}, char", command("char", prompt), f"U+{ord(first):04X}")


def skipped_character(rng: Random, folder: Path) -> Case:
    prompt = "".join(rng.choices([*CHARACTERS, *STRANGE], k=rng.randrange(1, 20)))
    kept = CharTokenizer(CHARACTERS).known(prompt)
    check = continues(folder, "char", kept)
    return harmless(f"the prompt {prompt!a}", command("char", prompt, "--skip-unknown"), check)


def half_a_pair(rng: Random, folder: Path) -> Case:
    half = rng.choice(("\ud800", "\udfff", "\ud83d", "\udcff", "\udc80"))
    prompt = rng.choice(("", "to ")) + half + rng.choice(("", "be"))
    kind = rng.choice(list(MODELS))
    names = (f"U+{ord(half):04X}", "UTF-8", "--prompt")
    return refused(f"the prompt {prompt!a}, {kind}", command(kind, prompt), *names)


def like_a_flag(rng: Random, folder: Path) -> Case:
    """A prompt after a space that looks like a flag: it is taken for one, or for the text."""
    prompt = rng.choice(("--tokens", "-x", "--", "-1", "--help-me", "---"))
    arguments = ["sample", "--model", MODELS["gpt2"], *bases.SAMPLING, "--prompt", prompt]
    reason = "to parsers a word that begins with a hyphen is a flag"
    return either(
        f"--prompt {prompt}", arguments, reason, "--prompt", prompt,
        check=continues(folder, "gpt2", prompt),
    )  # fmt: skip


def without_value(rng: Random, folder: Path) -> Case:
    arguments = ["sample", "mine", *bases.SAMPLING, "--prompt"]
    return refused("--prompt without a prompt", arguments, "--prompt")


def two_prompts(rng: Random, folder: Path) -> Case:
    first, last = rng.choices(("to", "be", "or", "not"), k=2)
    arguments = [*command("char", first), "--prompt", last]
    check = continues(folder, "char", last)
    return either(
        "two prompts", arguments, "the last flag counts, or both are refused", "prompt", check=check
    )


def bad_tokens(rng: Random, folder: Path) -> Case:
    value = rng.choice(
        ("-1", "-3", "1.5", "x", "", "nan", str(-(10**30)), "1e3", "٣x", "0x10", "None")
    )
    arguments = [*command("char", "to"), f"--tokens={value}"]
    return refused(f"--tokens {value!a}", arguments, "--tokens")


def no_tokens(rng: Random, folder: Path) -> Case:
    kind = rng.choice(list(MODELS))
    prompt = rng.choice(("", "to be", "be"))

    def check(outcome: Outcome) -> str:
        return "" if outcome.stdout == prompt + "\n" else "it should write the prompt alone"

    return harmless("no tokens", [*command(kind, prompt), "--tokens", "0"], check)


def bad_rule(rng: Random, folder: Path) -> Case:
    flag, value = rng.choice(
        [
            *(("--temperature", value) for value in ("-1", "nan", "inf", "-inf", "x", "", "1e999")),
            *(("--top-k", value) for value in ("0", "-1", "1.5", "x", "", "nan", str(-(10**30)))),
            *(("--seed", value) for value in ("-1", str(2**32), str(10**30), "x", "1.5", "")),
        ]
    )
    arguments = [part for part in command("char", "to") if part != "--greedy"]
    arguments = arguments[:3] + [f"{flag}={value}"] + [p for p in arguments[3:] if flag != "--seed"]
    if flag == "--seed":
        arguments = ["sample", "mine", "--backend", "numpy", "--tokens", "8", f"--seed={value}"]
    names = (flag, flag[2:], flag[2:].replace("-", "_"))
    return refused(f"{flag} {value}", arguments, *names)


def extreme_rule(rng: Random, folder: Path) -> Case:
    """Rules at the end of their range leave the likeliest character."""
    flags = rng.choice((["--top-k", "1"], ["--temperature", "0"], ["--temperature", "1e-300"]))
    prompt = "".join(rng.choices(CHARACTERS, k=9))
    arguments = ["sample", "mine", "--prompt", prompt, "--backend", "numpy", "--tokens", "8"]
    check = continues(folder, "char", prompt)
    return harmless(" ".join(flags), [*arguments, *flags, "--seed", "5"], check)


def wide_rule(rng: Random, folder: Path) -> Case:
    """A K beyond the vocabulary draws from all of it."""
    arguments = ["sample", "mine", "--backend", "numpy", "--tokens", "50", "--seed", "3"]
    wide = rng.choice(("18", "19", str(2**31), str(2**70)))
    return harmless(f"--top-k {wide}", [*arguments, "--top-k", wide], like=arguments)


def contradiction(rng: Random, folder: Path) -> Case:
    flags, names = rng.choice(
        [
            (["--greedy", "--temperature", "0.5"], ("--greedy", "--temperature")),
            (["--model", "gpt"], ("--model",)),
            (["--tokenizer-path", "pieces"], ("pieces", "--tokenizer-path")),
        ]
    )
    arguments = [part for part in command("char", "to") if part != "--greedy"]
    return refused(" ".join(flags), [*arguments, *flags], *names)


KINDS: tuple[Kind, ...] = (
    empty, known, known, white_space, long, long, strange_for_bytes, strange_for_bytes,
    strange_for_bytes, line_ends, unknown_character, unknown_character, unknown_character,
    skipped_character, skipped_character, half_a_pair, half_a_pair, like_a_flag, without_value,
    two_prompts, bad_tokens, bad_tokens, no_tokens, bad_rule, bad_rule, extreme_rule, wide_rule,
    contradiction,
)  # fmt: skip
