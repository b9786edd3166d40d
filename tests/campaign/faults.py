# pyright: basic
"""The table of faults: files to damage, the commands that read them, and their expected outcome."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from campaign import damage
from campaign.damage import JSON, Format, Ways, added, changes, damaged, edits, entries, merged
from campaign.inputs import CHECKPOINT, FROM_MODEL, SAMPLING, TINY, TRAIN
from campaign.runner import Fault
from helpers import byte_pairs
from helpers.optional import needs
from helpers.tiny_run import TEXT

Commands = Iterable[Sequence[str]]


def refused(commands: Commands, files: str, ways: Ways, *names: str) -> Fault:
    return Fault(commands, files, ways, names)


def same(commands: Commands, files: str, ways: Ways, prints: str = "") -> Fault:
    return Fault(commands, files, ways, refused=False, accepted=True, prints=prints)


def either(commands: Commands, files: str, ways: Ways) -> Fault:
    return Fault(commands, files, ways, accepted=True)


def given(commands: Commands, flag: str, values: Iterable[str], *names: str) -> Fault:
    """Return a fault in a positional argument or the value of a flag."""
    return Fault(commands, names=names, arguments=[(*flag.split(), value) for value in values])


# Names of files, folders and runs that do not exist or cannot be used.
NAMES = (
    *("nosuch", "../nosuch", "/nosuch", "text.txt/x", "\ud800", "x" * 300, "a\nb", "~", "-", " "),
    *("$HOME", "file:/etc/passwd", "http:/t.txt", ".", "..", "/dev/null", "/dev/zero"),
    *("[bold]mine[/bold]", "\x1b[31mmine", "mine/../mine/..", "TinyShakespeare"),
)
PREPARE = ("prepare", "--data", "text.txt", "--tokenizer", "char", "--out", "out")
PAIRS = ("prepare", "--data", "text.txt", "--tokenizer-path", "pairs", "--out", "out")
EVALUATE = (*TRAIN, "--eval-only")
LEARN = ("tokenize", "--train", "sentencepiece", "--data", "text.txt", "--out", "my.model")
LEARN_290 = ("tokenize", "--vocab-size", "290", *LEARN[1:])
TOKENIZE = ("tokenize", "to be", "--data", "text.txt")
CONVERT = ("convert", "bare", "out", "--text", "text.txt")
TEXT_READERS = (EVALUATE, PREPARE, PAIRS, TOKENIZE, LEARN_290, CONVERT)
OUT = ("prepare", "--out", "out")
REMOVED = entries(wrong=[damage.REMOVED])
NOT_UTF8 = damage.EMPTY | edits(only_a_mark=b"\xef\xbb\xbf", **{
    encoding: TEXT.replace("question", "questión").encode(encoding)
    for encoding in ("utf-16", "utf-16-be", "utf-32", "latin-1", "cp500")
}) | edits(**{
    f"{bad!r} inserted": lambda rng, c, bad=bad: c[: (n := rng.randrange(len(c)))] + bad + c[n:]
    for bad in (b"\xff", b"\x80", b"\xe2\x82", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80",
                b"PK\x03\x04\xff", b"\x89PNG\r\n\x1a\n")
})  # fmt: skip
LINE_ENDS = edits(
    windows=lambda rng, c: b"\xef\xbb\xbf" + c.replace(b"\n", b"\r\n"),
    old_mac=lambda rng, c: c.replace(b"\n", b"\r"),
)
STRANGE = edits(**{
    f"with {char!a}": lambda rng, c, char=char: c + char.encode()
    for char in ("\0", "\x1b", "\u2028", "\x85", "\u202e", "\ufeff", "\uffff", "🙂")
})  # fmt: skip
SHORT = edits(a=b"a", newline=b"\n", spaces=b" " * 20, short=b"ab" * 10, nul=b"\0" * 30)
TEXTS = (
    refused(TEXT_READERS, "text.txt", NOT_UTF8 | damage.PLACES),
    refused([EVALUATE, LEARN_290, CONVERT], "text.txt", SHORT, "text", "pieces", "characters"),
    refused([CONVERT], "text.txt", edits(é=(TEXT + "é").encode(), abc=b"abc" * 100)),
    same(TEXT_READERS, "text.txt", LINE_ENDS),
    same([EVALUATE, PREPARE, PAIRS], "text.txt", STRANGE, f"{len(TEXT) + 1:,} characters"),
    same([PREPARE, PAIRS, TOKENIZE], "text.txt", damage.LINKED),
    given([("train", *TINY), OUT, TOKENIZE[:2], (*LEARN[:3], *LEARN[5:])], "--data", NAMES),
    given([PREPARE[:-2], PAIRS[:-2], LEARN_290[:-2]], "--out",
          ("runs", "text.txt", ".", "text.txt/x", "x" * 300, "/proc/x", "/dev/null", "\ud800")),
    given([LEARN], "--vocab-size", ("0", "-1", "1", "5", "100", "100000", "2147483648", str(10**30),
                                    "x", "1.5"), "pieces"),
)  # fmt: skip

RUN = "runs/mine"
SAMPLE, EXPORT = ("sample", "mine", *SAMPLING), ("convert", "mine", "out")
RESUME = ("train", "--resume", "mine", "--max-iters", "3")
TRAINING = (RESUME, ("train", "--resume", "mine", "--eval-only"))
READERS = (SAMPLE, EXPORT, *TRAINING)
CONFIG, MODEL, OPTIMIZER, STATE, SUMS, CHARACTERS = FILES = [
    f"{CHECKPOINT}/{name}"
    for name in (
        *("config.json", "model.safetensors", "optimizer.safetensors"),
        *("state.json", "sha256.json", "tokenizer.json"),
    )
]
# Settings that may change when a run is resumed, and names that are only shown.
FREE = ("max_iters", "threads", "keep_best", "data", "name")


def sealed(ways: Ways) -> Ways:
    """Make the checksums agree with the damaged file."""
    return {f"{name}, with its checksum": partial(seal, way) for name, way in ways.items()}


def seal(way: damage.Way, rng: Random, path: Path) -> None:
    way(rng, path)
    checksum, sums = hashlib.sha256(path.read_bytes()).hexdigest(), path.with_name("sha256.json")
    JSON.write(sums, JSON.read(sums) | {path.name: checksum})


KNOWN = sorted({*TEXT})
VOCABULARIES = merged(*(
    {"vocabulary": characters}
    for characters in ([*KNOWN, "é"], KNOWN[1:], [*KNOWN[1:], KNOWN[1]], [*KNOWN[1:], "ab"],
                       [*KNOWN[1:], "\ud800"], [*KNOWN[1:], None])
))  # fmt: skip
METRICS = edits(**{
    f"beginning with {line[:20]!r}": lambda rng, c, line=line: line + c
    for line in (b"\n", b"null\n", b"{}\n", b'{"step": "x"}\n', b"\xff\n", b"[" * 100_000 + b"\n")
})  # fmt: skip
RUNS = (
    refused(READERS, " ".join(FILES), damage.SPOILT | damage.FLIPPED | damage.APPENDED
            | damage.PLACES),
    refused(READERS, f"{CONFIG} {STATE} {CHARACTERS}", sealed(damage.NOT_JSON)),
    refused(READERS, CONFIG, sealed({**entries(wrong=damage.WRONG),
                                     **merged({"n_experts": 1}, {"n_layer": 10**9})}),
            "model.safetensors", "tokenizer.json"),
    # Older runs lack some settings, with the values of a GPT-2.
    either([SAMPLE, EXPORT, TRAINING[1]], CONFIG, sealed(REMOVED)),
    refused(TRAINING, STATE, sealed({**entries(*FREE, "val_loss", wrong=damage.WRONG[1:]),
                                     **merged({"val_loss": -1}, {"val_loss": "x"},
                                              {"data": {"sha256": "0" * 64}})}),
            "runs/mine was trained"),
    either([SAMPLE, TRAINING[1]], STATE, sealed(REMOVED)),
    either([SAMPLE], STATE, sealed(entries())),  # Only training needs the state.
    refused(READERS, MODEL, sealed(damage.TENSORS)),
    refused(TRAINING, OPTIMIZER, sealed(damage.TENSORS)),
    refused(READERS, CHARACTERS, sealed({**entries("type"), **VOCABULARIES}), "vocabulary",
            "tokenizer"),
    refused(READERS, SUMS, {**entries(), **merged(*(
        {name: "0" * 64} for name in ("../text.txt", "more.bin", ".", "..", "", "a\0b", "\ud800")
    ))}),
    refused(READERS, f"{CHECKPOINT}/notes.txt {CHECKPOINT}/vocab.json", added(b"x"), "sha256.json"),
    either([TRAINING[1]], f"{RUN}/config.json", REMOVED),
    refused(TRAINING, f"{RUN}/config.json", damaged("json", *FREE), "mine", "--block-size"),
    refused([RESUME], f"{RUN}/metrics.jsonl", METRICS | damage.PIPE),
    same([RESUME], f"{RUN}/metrics.jsonl", edits(
        half_a_line=lambda rng, c: c + c[: rng.randrange(1, 30)].rstrip(b"\n")), "1 more step"),
    same([SAMPLE, TRAINING[1]], f"{CONFIG} {MODEL} {STATE}", damage.LINKED),
    same([SAMPLE, EXPORT], f"{RUN} {RUN}/checkpoints {CHECKPOINT}", damage.LINKED),
    same([SAMPLE, EXPORT, TRAINING[1]], " ".join(f"{RUN}/checkpoints/{name}" for name in (
        ".writing-000003/x", "abc/x", "-1/x", "²/x", "000003", "abc")), added(b"x")),
    *(refused(READERS, f"{RUN}/checkpoints/{name}/x", added(b"x"), name)
      for name in ("000003", "9" * 30, "٣")),
    refused([SAMPLE, EXPORT], f"{RUN}/checkpoints", damage.MISSING, "mine"),
    given([("sample", *SAMPLING), ("train", "--resume")], "", (*NAMES, "text.txt", "runs"), "run"),
    given([TRAIN], "--name", ("", ".", "..", "a/b", "/tmp/x", "mine", "x" * 300, "\ud800", "../x")),
    given([RESUME], "", ("--n-layer=3", "--dropout=0.5", "--seed=7", "--tokenizer=gpt2",
                         "--name=other", "--preset=smoke", "--dtype=float64", "--data=nosuch.txt",
                         "--data=shakespeare")),
    Fault([("train", "--resume", "mine")], names=("steps",)),
)  # fmt: skip


def tokens_of(content: bytes) -> np.ndarray:
    return np.frombuffer(content, "<u2").copy()


def put_token(tokens: Sequence[int], rng: Random, content: bytes) -> bytes:
    """Put one of the tokens anywhere."""
    found = tokens_of(content)
    place = rng.randrange(len(found))
    found[place] = rng.choice([token for token in tokens if token != found[place]])
    return found.tobytes()


TOKEN_FILE = damage.EMPTY | damage.PLACES | edits(
    **{f"as {dtype}": lambda rng, c, dtype=dtype: tokens_of(c).astype(dtype).tobytes()
       for dtype in ("<u4", "<i8", ">u2", "<f4", "u1")},
    header_of_llmc=lambda rng, c: np.array([20240520, *[9] * 255], "<i4").tobytes() + c,
    npy=lambda rng, c: b"\x93NUMPY\x01\0v\0" + b" " * 118 + c,
    text=lambda rng, c: " ".join(map(str, tokens_of(c))).encode(),
    a_token_out_of_range=partial(put_token, [264, 300, 60_000, 65_535]),
    another_byte=lambda rng, c: c + b"\0",
    more_tokens=lambda rng, c: c + c[: 2 * rng.randrange(1, 30)],
    fewer_tokens=lambda rng, c: c[: -2 * rng.randrange(1, 30)],
    eight_tokens=b"\0\0" * 8,
)  # fmt: skip
INPUT = NOT_UTF8 | damage.PLACES | edits(
    a_character_changed=lambda rng, c: c[: (n := rng.randrange(1700))] + b"~" + c[n + 1 :],
    a_character_more=lambda rng, c: b"T" + c,
    half=lambda rng, c: c[: len(c) // 2],
)  # fmt: skip
LOAD = {
    place: [("train", "--data", place, *TINY, "--eval-only", *flags)]
    for place, flags in {"chars": (), "bytes": ("--tokenizer", "gpt2"), "nano": ()}.items()
}
META = {n: w for n, w in damaged("json", "characters").items() if n not in damage.MISSING}
TOKENS = (
    *(fault for place, load in LOAD.items() for fault in (
        refused(load, f"{place}/train.bin {place}/val.bin", TOKEN_FILE, "too short"),
        same(load, f"{place}/train.bin {place}/val.bin", damage.LINKED),
        given(load, "--block-size", ("200", "2000", "100000"), "too short"),
    )),
    *(refused(LOAD[place], f"{place}/meta.json", META) for place in ("chars", "bytes")),
    *(either(LOAD[place], f"{place}/meta.json", REMOVED) for place in ("chars", "bytes")),
    refused(LOAD["chars"], "chars/meta.json", damage.MISSING),
    refused(LOAD["chars"], "chars/tokenizer.json", damaged("json", "type") | VOCABULARIES),
    refused(LOAD["bytes"], "bytes/vocab.json bytes/merges.txt", damaged()),
    refused(LOAD["nano"], "nano/train.bin nano/val.bin",
            edits(another_token=partial(put_token, range(18)))),
    refused(LOAD["nano"], "nano/input.txt", INPUT),
    same(LOAD["nano"], "nano/input.txt", LINE_ENDS),
    same(LOAD["nano"], "nano/meta.pkl", added(b"", b"cos\nsystem\n")),
    given(LOAD["chars"] + LOAD["nano"], "--tokenizer", ("sentencepiece",), "chars", "nano"),
    given([("train", *TINY, "--eval-only")], "--data", ("pairs", ".", "/proc"), "train.bin"),
)  # fmt: skip

GPT = (
    ("sample", "--model", "gpt", "--prompt", "the re", *SAMPLING),
    ("convert", "gpt", "out"),
    ("train", "--init-from", "gpt", "--data", "text.txt", *FROM_MODEL, "--eval-only"),
)
SHARDS = [[part.replace("gpt", "shards") for part in command] for command in GPT]
INDEX, BIAS = "shards/model.safetensors.index.json", "transformer.ln_f.bias"
UNUSED = (
    *("architectures", "n_ctx", "attn_pdrop", "embd_pdrop", "resid_pdrop", "bos_token_id"),
    *("eos_token_id", "torch_dtype"),
)
OTHER_MODELS = merged(
    *({"model_type": "llama"}, {"activation_function": "quick_gelu"}, {"n_inner": 16}),
    *({"tie_word_embeddings": False}, {"scale_attn_weights": False}, {"add_cross_attention": True}),
    {"layer_norm_epsilon": -1e-6},
)
CONTRADICTIONS = changes(
    damage.TENSOR_FILE,
    both_prefixes=lambda rng, t: t.update({"ln_f.bias": t[BIAS]}),
    another_head=lambda rng, t: t.update({"lm_head.weight": t["transformer.wpe.weight"]}),
)
GPT2 = (
    refused(GPT, "gpt/config.json", damaged("json", "layer_norm_epsilon", *UNUSED) | OTHER_MODELS,
            "model.safetensors", "tokenizer"),
    either(GPT, "gpt/config.json", REMOVED),
    same(GPT, "gpt/config.json", merged(
        {"n_inner": 32, "torch_dtype": "float16", "architectures": None, "_name_or_path": "\ud83d",
         "activation_function": "gelu_pytorch_tanh", "new": [{"a": {"b": [1, 2]}}]})),
    refused(GPT, "gpt/model.safetensors", damaged("safetensors") | CONTRADICTIONS),
    refused(GPT[:2], "gpt/vocab.json gpt/merges.txt", damage.SPOILT),
    refused(GPT[:1], "gpt/vocab.json gpt/merges.txt", damage.PLACES, "tokenizer"),
    same(GPT, "gpt/config.json gpt/model.safetensors gpt/vocab.json gpt/merges.txt", damage.LINKED),
    refused(SHARDS, INDEX, {**damage.NOT_JSON, **entries(wrong=damage.WRONG), **merged(*(
        {"weight_map": {BIAS: file}} for file in (
            "../gpt/model.safetensors", "/etc/passwd", "", ".", "..", "nosuch", "a\0b")))}),
    either(SHARDS, INDEX, REMOVED),
    refused(SHARDS, "shards/first.safetensors", damaged("safetensors")),
    refused(GPT, "gpt/model.safetensors", {"as a pickle": lambda rng, path: path.rename(
        path.with_name("pytorch_model.bin"))}, "pytorch_model.bin"),
    same(GPT, "gpt/README.md gpt/generation_config.json", added(b"\0x", b"{")),
    either(GPT, "gpt/tokenizer_config.json gpt/special_tokens_map.json",
           added(b"", b"{", b"[]", b"\xff", b'{"bos_token": 7}')),
)  # fmt: skip
LLAMAS = [[part.replace("gpt", "llama") for part in command] for command in GPT]
# Another of these values is as good, or another field has the same value.
FREE_IN_LLAMA = (
    *("architectures", "bos_token_id", "eos_token_id", "torch_dtype", "attention_dropout"),
    *("max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_parameters"),
)
LLAMA = (
    refused(LLAMAS, "llama/config.json", damaged("json", *FREE_IN_LLAMA) | merged(
        {"model_type": "mistral"}, {"hidden_act": "gelu"}, {"attention_bias": True},
        {"rope_parameters": {"rope_type": "llama3", "factor": 8}}, {"rope_scaling": "linear"},
        {"rms_norm_eps": 0}, {"quantization_config": {"quant_method": "gptq"}}, {"head_dim": 2}),
            "model.safetensors", "tokenizer"),
    either(LLAMAS, "llama/config.json", REMOVED),
    same(LLAMAS, "llama/config.json", merged(
        {"rope_scaling": None, "head_dim": None, "hidden_act": "swish", "rope_theta": 1.0})),
    refused(LLAMAS, "llama/model.safetensors", damaged("safetensors")),
    refused(LLAMAS[:1], "llama/tokenizer.model", damage.PLACES, "tokenizer"),
)  # fmt: skip


def readers(kind: str, *path: str) -> Sequence[Sequence[str]]:
    flags = ("--tokenizer", kind, *(("--tokenizer-path", *path) if path else ()))
    return (
        ("tokenize", "hi there, the hello  re\n<|endoftext|> é🙂 hii", *flags),
        ("prepare", "--data", "text.txt", "--out", "out", *flags),
        (*EVALUATE, *flags),
    )


LINES = Format(
    lambda path: path.read_bytes().splitlines(),
    lambda path, found: path.write_bytes(b"".join(line + b"\r\n" for line in found)),
)
IN_PAIRS, IN_SAVED = readers("gpt2", "pairs"), readers("gpt2", "saved")
IN_PIECES, SIZE = readers("sentencepiece", "pieces"), len(byte_pairs.vocabulary())
MERGES = damage.SPOILT | damage.PLACES | changes(
    LINES,
    one_line_twice=lambda rng, v: v.append(rng.choice(v[1:])),
    one_line_missing=lambda rng, v: v.pop(rng.randrange(1, 4)),
    another_order=lambda rng, v: v.reverse(),
    **{f"the line {line!a}": lambda rng, v, line=line: v.insert(rng.randrange(1, len(v)), line)
       for line in (b"x", b"x y z", b"x  y", b"  ", "é \u4e2d".encode(), b"qq x", b"x\ty", b" x")},
)  # fmt: skip
SAME_MERGES = changes(
    LINES, no_version=lambda rng, v: v.pop(0), empty_lines=lambda rng, v: v.append(b"")
)
ADDED = (
    *(b"{", b"null", b'["<pad>"]', b'{"<pad>": "x"}', b'{"<pad>": 3}', b'{"<pad>": -1}'),
    *(b'{"<pad>": 264.5}', b'{"<pad>": 271}', b'{"<pad>": 264, "<sep>": 264}'),
)
SAVED = damaged("json", "version", "added_tokens", "decoder", "trim_offsets") | merged(
    *({"added_tokens": x} for x in ("x", [7], [{"id": 3, "content": "y"}], [{"id": "x"}])),
    {"normalizer": {"type": "NFC"}},
    {"post_processor": {"type": "BertProcessing"}},
    {"pre_tokenizer": {"type": "Whitespace"}},
    {"model": {"type": "WordPiece"}},
    {"model": {"continuing_subword_prefix": "##"}},
    {"model": {"ignore_merges": True}},
    {"model": {"dropout": 0.5}},
)
TOKENIZERS = (
    refused(IN_PAIRS, "pairs/merges.txt", MERGES, "merge", "vocab.json"),
    same(IN_PAIRS[:1], "pairs/merges.txt", SAME_MERGES),
    refused(IN_PAIRS, "pairs/vocab.json", {**damaged("json"), **entries(), **merged(
        {"<more>": SIZE + 5}, {"<more>": SIZE - 1}, {"hi": 3})}, "merge"),
    same(IN_PAIRS[:1], "pairs/vocab.json", merged({"<pad>": SIZE}), f"{SIZE + 1} tokens"),
    same(IN_PAIRS[:1], "pairs/added_tokens.json", added(b'{"<pad>": %d}' % SIZE),
         f"{SIZE + 1} tokens"),
    refused(IN_PAIRS, "pairs/added_tokens.json", added(*ADDED)),
    refused(IN_PAIRS, "pairs/tokenizer.json",
            added(b'{"type": "char"}', b'{"type": "char", "vocabulary": "abc"}', b'{"a": 1}')),
    refused(IN_SAVED, "saved/tokenizer.json", SAVED),
    either(IN_SAVED, "saved/tokenizer.json", REMOVED),
    same(IN_SAVED[:1], "saved/tokenizer.json", merged(
        {"truncation": {"max_length": 3}}, {"post_processor": None},
        {"model": {"merges": [*map(" ".join, byte_pairs.PAIRS)]}})),
    same(IN_SAVED[:1], "saved", damage.LINKED),
    refused(IN_PIECES, "pieces/tokenizer.model", damaged()),
    either(IN_PIECES[:1], "pieces/tokenizer.model", damage.FLIPPED),
    given(readers("gpt2"), "--tokenizer-path", (*NAMES, "pieces", "chars")),
    given(readers("sentencepiece"), "--tokenizer-path", (*NAMES, "pairs", "saved", "chars")),
)  # fmt: skip

TORCH = Format(
    lambda path: needs("torch").load(path), lambda path, value: needs("torch").save(value, path)
)
CONTENTS = changes(
    TORCH,
    a_state_dict=lambda rng, v: v.update(v.pop("model")),
    no_tensors=lambda rng, v: v["model"].clear(),
    another_class=lambda rng, v: v.update(config=Path("x")),
    **{f"the name {name!a}": lambda rng, v, name=name: v["model"].update({name: v["model"][BIAS]})
       for name in (7, "\ud800", "a\0b\x1b[31m", "x" * 300, "module.ln_f.bias", "lm_head.weight")},
)  # fmt: skip
FROM_CKPT = [("convert", "ckpt.pt", "out", "--text", "text.txt")]
OTHER_PARTS = ("model", "optimizer", "config", "iter_num", "best_val_loss")
NANOGPT = (
    refused(FROM_CKPT, "ckpt.pt", damaged() | CONTENTS),
    refused(FROM_CKPT, "ckpt.pt", entries(*OTHER_PARTS, file=TORCH, wrong=damage.WRONG[1:]),
            "memory"),
    either(FROM_CKPT, "ckpt.pt", damage.FLIPPED
           | entries(*OTHER_PARTS, file=TORCH, wrong=[damage.REMOVED])),
    same(FROM_CKPT, "ckpt.pt", damage.LINKED),
    given([("convert", "ckpt.pt", "--text", "text.txt")], "",
          ("text.txt", ".", "ckpt.pt", "text.txt/x", "/proc/x")),
)  # fmt: skip
FAULTS: dict[str, Sequence[Fault]] = {
    "texts": TEXTS, "runs": RUNS, "tokens": TOKENS, "gpt2": GPT2, "llama": LLAMA,
    "tokenizers": TOKENIZERS, "nanogpt": NANOGPT,
}  # fmt: skip
