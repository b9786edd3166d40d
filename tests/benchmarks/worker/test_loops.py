"""The loops of assembly, and which of them is called the hottest."""

from collections.abc import Sequence

import pytest

from benchmarks.worker import loops
from benchmarks.worker.instructions import arm, x86

# A product: for each row, skip it or add up its numbers four at a time, then one by one.
NESTED = """
	.type	total,@function
total:
	testq	%rdi, %rdi
	jle	.LBB0_9
	xorl	%eax, %eax
	jmp	.LBB0_3
	.p2align	4
.LBB0_2:
	incq	%rax
	cmpq	%rdi, %rax
	je	.LBB0_9
.LBB0_3:
	testq	%rsi, %rsi
	je	.LBB0_2
.LBB0_4:                                # =>  This Inner Loop Header: Depth=2
	vaddps	(%rdx), %xmm0, %xmm0
	addq	$16, %rdx
	nopw	(%rax)
	decq	%rsi
	jne	.LBB0_4
.LBB0_6:
	vaddss	(%rdx), %xmm0, %xmm0
	addq	$4, %rdx
	decq	%rcx
	jne	.LBB0_6
	jmp	.LBB0_2
.LBB0_9:
	retq
.LCPI0_0:
	.long	0
"""


def depths(text: str, name: str) -> dict[str, int]:
    """Return the depth of each loop of a function by the label of its first block."""
    function = loops.functions_of(text)[name]
    return {function.blocks[loop.first].label: loop.depth for loop in function.loops}


def hottest(text: str, *starts: str) -> loops.HotLoop:
    found = loops.hottest(loops.functions_of(text), starts, x86)
    assert found is not None
    return found


def test_loops_are_found_with_their_depths() -> None:
    assert depths(NESTED, "total") == {".LBB0_3": 1, ".LBB0_4": 2, ".LBB0_6": 2}


def test_a_loop_has_its_blocks_without_those_of_the_loops_in_it() -> None:
    function = loops.functions_of(NESTED)["total"]
    labels = [
        sorted(function.blocks[each].label for each in loop.blocks) for loop in function.loops
    ]
    # Blocks without a label follow a jump that may not be taken.
    assert sorted(labels) == [["", ".LBB0_2", ".LBB0_3"], [".LBB0_4"], [".LBB0_6"]]


def test_the_lines_have_notes_and_the_counts_come_last() -> None:
    assert hottest(NESTED, "total").text == [
        "total, nesting depth 2, chosen by its code:",
        ".LBB0_4:",
        f"  {'vaddps (%rdx), %xmm0, %xmm0':44} arithmetic ×4, load",
        f"  {'addq $16, %rdx':44} scalar",
        f"  {'decq %rsi':44} scalar",
        f"  {'jne .LBB0_4':44} branch",
        "1 arithmetic ×4, 1 load, 3 others: 4 FLOP per iteration",
    ]


# A switch in a loop; each case is a loop.
SWITCH = """
choose:
.LBB0_1:
	jmpq	*(%rcx,%rax,8)
.LBB0_2:
	vaddps	%ymm0, %ymm1, %ymm1
	decq	%rsi
	jne	.LBB0_2
	jmp	.LBB0_5
.LBB0_4:
	vmulps	%zmm0, %zmm1, %zmm1
	decq	%rsi
	jne	.LBB0_4
.LBB0_5:
	decq	%rdi
	jne	.LBB0_1
	retq
.LJTI0_0:
	.quad	.LBB0_2
	.quad	.LBB0_4
"""


def test_a_jump_through_a_table_leads_to_what_is_not_reached_otherwise() -> None:
    assert depths(SWITCH, "choose") == {".LBB0_1": 1, ".LBB0_2": 2, ".LBB0_4": 2}
    assert hottest(SWITCH, "choose").flops == 16


def test_code_that_is_never_reached_is_no_loop() -> None:
    dead = "f:\n\tretq\n\tnopl\t(%rax)\n.L1:\n\tdecq\t%rdi\n\tjne\t.L1\n\tjmp\t.L2\n.L2:\n\tretq\n"
    assert depths(dead, "f") == {}
    assert depths(dead.replace("f:\n", "f:\n\tjne\t.L2\n"), "f") == {}
    # That has a jump through a table that is never reached either.
    assert depths(dead.replace("nopl\t(%rax)", "jmpq\t*(%rax)"), "f") == {}


# Each row, the first too, is entered before one of two loops.
TWO_ENTRIES = """
f:
	jbe	.L3
.L1:
	xorl	%esi, %esi
.L2:
	vaddps	(%rdx), %ymm0, %ymm0
	jne	.L2
	incq	%rax
	je	.L5
	ja	.L1
.L3:
	xorl	%esi, %esi
.L4:
	vaddss	(%rdx), %xmm0, %xmm0
	jne	.L4
	jmp	.L1
.L5:
	retq
"""


def test_a_loop_may_have_several_entries() -> None:
    assert depths(TWO_ENTRIES, "f") == {".L1": 1, ".L2": 2, ".L4": 2}
    found = hottest(TWO_ENTRIES, "f")
    assert (found.depth, found.flops) == (2, 8)


def loop_of(*lines: str, label: str = ".L1") -> str:
    return "\n".join([f"{label}:", *(f"\t{line}" for line in lines), f"\tjne\t{label}"])


def function_of(name: str, *parts: str) -> str:
    return "\n".join([f"{name}:", *parts, "\tretq\n"])


def test_the_loops_around_a_call_count() -> None:
    inner = function_of("inner", loop_of("vaddss %xmm0, %xmm1, %xmm1"))
    call = ("movabsq $inner, %rax", "callq *%rax")
    for lines in (call, ("callq inner",), ("callq inner@plt",)):
        outer = function_of(
            "outer",
            loop_of("vmulps %zmm0, %zmm1, %zmm1", label=".L5"),
            loop_of(*lines, "vdivps %zmm0, %zmm1, %zmm1", label=".L6"),
        )
        found = hottest(inner + outer, "outer")
        assert (found.function, found.depth, found.flops) == ("inner", 2, 1)
    # The address may be taken long before the call.
    outer = function_of("outer", "\tmovabsq $inner, %rbp", loop_of("callq *%rbp"))
    assert hottest(inner + outer, "outer").depth == 2


def test_functions_that_call_each_other_end() -> None:
    text = function_of("f", loop_of("callq g", "addss %xmm0, %xmm0"))
    text += function_of("g", loop_of("callq f", "addss %xmm0, %xmm0"))
    assert hottest(text, "f").depth == 2


ADD, MULTIPLY = "vaddps %zmm0, %zmm1, %zmm1", "vmulps %zmm0, %zmm2, %zmm2"
MOVE, CALL = "vmovups (%rax), %zmm0", "callq expf"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([ADD], [MOVE, MOVE]),
        ([ADD, MULTIPLY], [ADD]),
        ([ADD, MULTIPLY], [ADD, MULTIPLY, MOVE]),
        ([CALL], [ADD, MULTIPLY]),
        ([ADD], ["callq memcpy"]),
        ([CALL, CALL], [CALL, ADD]),
    ],
)
def test_of_equally_deep_loops_the_one_that_computes_most_is_the_hottest(
    first: Sequence[str], second: Sequence[str]
) -> None:
    for order in ((first, second), (second, first)):
        parts = [loop_of(*lines, label=f".L{len(lines)}{lines[-1][:5]}") for lines in order]
        text = function_of("f", *parts).replace(".L", ".LBB0_").replace(" ,", ",")
        found = hottest(text, "f")
        assert [each.text for each in found.instructions][:-1] == [*first]


def test_a_deeper_loop_that_only_moves_is_not_the_hottest() -> None:
    moves = loop_of(MOVE, label=".L2")
    text = function_of("f", ".L1:", moves, f"\t{ADD}", "\tjne .L1")
    found = hottest(text, "f")
    assert (found.depth, found.flops) == (1, 16)
    assert MOVE not in [each.text for each in found.instructions]
    assert loops.hottest(loops.functions_of(function_of("f", moves)), ["f"], x86) is None


def test_a_long_loop_is_cut_in_the_middle() -> None:
    text = function_of("f", loop_of(*[f"vaddps %zmm{i}, %zmm1, %zmm1" for i in range(100)]))
    head, *lines, last = hottest(text, "f").text
    assert len(lines) == 60
    assert "%zmm42" in lines[43]
    assert lines[44] == "  … 43 more lines …"
    assert "%zmm86" in lines[45]
    assert (head, last[:18]) == ("f, nesting depth 1, chosen by its code:", "100 arithmetic ×16")


def test_with_samples_the_loop_with_most_of_them_is_the_hottest() -> None:
    # Two loops; the second has an addition that is not sampled, in a block of its own.
    first = loop_of("vdivps %zmm0, %zmm1, %zmm1 // at 10", "vmovaps %zmm0, %zmm2 // at 20")
    lines = [
        ".L2:", " mulss %xmm0, %xmm1 // at 30", " je .L3 // at 34",
        " addss %xmm0, %xmm1 // at 38", ".L3:", " jne .L2 // at 3c",
    ]  # fmt: skip
    functions = loops.functions_of(function_of("f", first, *lines))
    samples = [0x10, 0x30, 0x30, 0x3C, 0x99, 0x99, 0x99, 0x99]
    found = loops.sampled(functions, {"f": 2}, samples, x86)
    assert found is not None
    assert found.text == [
        "f, nesting depth 3, 38% of the samples:",
        ".L2:",
        f"25.0%  {'mulss %xmm0, %xmm1':44} arithmetic ×1",
        f"       {'je .L3':44} branch",
        ".L3:",
        f"12.5%  {'jne .L2':44} branch",
        "1 arithmetic ×1, 2 others: 1 FLOP per iteration",
    ]
    assert loops.sampled(functions, {"f": 0}, [0x99], x86) is None
    assert loops.sampled(functions, {"f": 0}, [], x86) is None
    assert loops.sampled({}, {}, [0x10], x86) is None


def test_arm_has_loops_too() -> None:
    inner = ["ldp q0, q1, [x2], #32", "fmla v2.4s, v0.4s, v1.4s", "subs x9, x9, #1", "b.ne LBB0_2"]
    lines = ["LBB0_1:", " mov x9, x1", "LBB0_2:", *map(" ".__add__, inner), " cbnz x8, LBB0_1"]
    text = function_of("_product", *lines)
    assert depths(text, "_product") == {"LBB0_1": 1, "LBB0_2": 2}
    found = loops.hottest(loops.functions_of(text), ["_product"], arm)
    assert found is not None
    assert found.summary == "1 FMA ×4, 1 load, 2 others: 8 FLOP per iteration"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("_ZN10tinygpt_np8compiled6matmul11tile_matmulB2v1B56c8tJTIeFIjxB2IKSgI4", "tile_matmul"),
        ("tinygpt_np.compiled.kernels.matmul.tile_matmul", "tile_matmul"),
        ("product", "product"),
        ("product._omp_fn.0", "product"),
        ("product.constprop.0.isra.0", "product"),
    ],
)  # fmt: skip
def test_names_are_shown_without_modules_and_types(name: str, read: str) -> None:
    assert loops.readable(name) == read
