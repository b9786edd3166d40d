"""The kind of an instruction is read from its line."""

import pytest

from benchmarks.worker.instructions import arm, parser_of, x86


@pytest.mark.parametrize(
    ("lanes", "lines"),
    [
        (16, "vaddps %zmm0, %zmm1, %zmm2; vfmadd231ps (%rax), %zmm0, %zmm1"),
        (16, "vcvtdq2ps %zmm0, %zmm1"),
        (8, "vcvtps2pd %ymm0, %zmm1; vcvtpd2ps %zmm0, %ymm1"),
        (8, "vsqrtpd %zmm0, %zmm1; vdivps %ymm0, %ymm1, %ymm1; vmaxps (%rax){1to8}, %ymm1, %ymm1"),
        (4, "mulps %xmm0, %xmm1; vcvttps2dq %xmm0, %xmm1; vcmpnlt_usps %xmm0, %xmm1, %xmm2"),
        (2, "vmulpd %xmm0, %xmm1, %xmm1"),
        (1, "vaddss %xmm0, %xmm1, %xmm1; vcvtss2sd %xmm0, %xmm1; vucomiss (%rax), %xmm1"),
        (1, "vcvtsi2sdq %rax, %xmm1, %xmm1; vfmadd213ss (%rax), %xmm0, %xmm1"),
        (0, "vmovups (%rax), %zmm0; vbroadcastss (%rax), %zmm0; vxorps %xmm0, %xmm0, %xmm0"),
        (0, "vpmaxsd %ymm0, %ymm1, %ymm1; subq $8, %rax; callq expf; vpslld $23, %zmm0, %zmm0"),
    ],
)  # fmt: skip
def test_the_mnemonic_and_the_registers_tell_the_lanes_on_x86(lanes: int, lines: str) -> None:
    for line in lines.split("; "):
        assert x86(line).lanes == lanes, line


@pytest.mark.parametrize(
    ("lanes", "lines"),
    [
        (4, "fadd v0.4s, v1.4s, v2.4s; fmla v0.4s, v1.4s, v2.s[1]; fmla.4s v0, v1, v2[1]"),
        (4, "fmla z0.s, p0/m, z1.s, z2.s"),
        (2, "scvtf v0.2d, v0.2d; fsqrt v0.2s, v1.2s; fadd z0.d, z1.d, z2.d"),
        (1, "fmul s0, s1, v2.s[1]; fmul.s s0, s1, v2[1]; fmadd d0, d1, d2, d3; fcmp s0, #0.0"),
        (0, "fmov s0, s1; ldr q0, [x0]; add v0.4s, v1.4s, v2.4s; dup v0.4s, v1.s[0]"),
    ],
)
def test_the_arrangement_tells_the_lanes_on_arm(lanes: int, lines: str) -> None:
    for line in lines.split("; "):
        assert arm(line).lanes == lanes, line


def test_a_multiply_add_is_two_flops_per_lane() -> None:
    for line in ("vfmadd231ps %zmm0, %zmm1, %zmm2", "vfnmadd213ps (%rax), %zmm1, %zmm2"):
        assert (x86(line).fused, x86(line).flops) == (True, 32)
    assert x86("vmulps %zmm0, %zmm1, %zmm2").flops == 16
    for line in ("fmla v0.4s, v1.4s, v2.4s", "fmls v0.4s, v1.4s, v2.s[3]"):
        assert arm(line).flops == 8
    assert arm("fnmadd s0, s1, s2, s3").flops == 2
    assert arm("fadd s0, s1, s2").flops == 1


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        (["FMA ×16", "load"], "vfmadd231ps 64(%rsi,%r14), %zmm4, %zmm2"),
        (["arithmetic ×1"], "vaddss %xmm0, %xmm1, %xmm1"),
        (["load"], "vmovups (%rax), %zmm0"),
        (["load"], "vmovups (%rax), %zmm0 {%k1} {z}"),
        (["load"], "cmpq $2, 328(%rsp)"),
        (["arithmetic ×1", "load"], "vucomiss (%rax), %xmm0"),
        (["store"], "vmovups %zmm0, 64(%rax,%rcx,4)"),
        (["store"], "vmovups %zmm0, (%rax) {%k1}"),
        (["store"], "addq $1, (%rax)"),
        (["prefetch"], "prefetcht1 (%rdx)"),
        (["vector"], "vshufps $0x55,%xmm1,%xmm1,%xmm5"),
        (["scalar"], "leaq (%rsi,%r14), %rbx"),
        (["scalar"], "addq %r13, %rdx"),
        (["call"], "callq *%rax"),
        (["branch"], "jne .LBB0_9"),
        (["branch"], "jmpq *(%rcx,%rax,8)"),
        (["branch"], "retq"),
    ],
)
def test_the_kinds_of_an_instruction_of_x86(kinds: list[str], line: str) -> None:
    assert x86(line).kinds == kinds


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        (["FMA ×4"], "fmla v0.4s, v1.4s, v2.s[1]"),
        (["load"], "ldp q5, q4, [x25]"),
        (["load"], "ld1w { z0.s }, p0/z, [x0, x1, lsl #2]"),
        (["store"], "stp q7, q6, [sp, #32]"),
        (["prefetch"], "prfm pldl2keep, [x0]"),
        (["vector"], "mov v0.s[1], v1.s[0]"),
        (["scalar"], "add x29, x28, x19"),
        (["call"], "bl expf"),
        (["branch"], "b.ne .LBB0_6"),
        (["branch"], "cbnz x8, .LBB0_6"),
        (["branch"], "tbz w8, #0, .LBB0_6"),
        (["branch"], "b .LBB0_6"),
    ],
)
def test_the_kinds_of_an_instruction_of_arm(kinds: list[str], line: str) -> None:
    assert arm(line).kinds == kinds


def test_the_target_tells_the_processor() -> None:
    targets = ("x86_64-unknown-linux-gnu", "elf64-x86-64", "arm64-apple-darwin23")
    assert [parser_of(each) for each in targets] == [x86, x86, arm]
    assert parser_of("elf64-littleaarch64") is arm
    assert parser_of("powerpc64le-linux") is None
