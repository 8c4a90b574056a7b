"""Triton kernels of the linear layer over codes: a product for few rows, decoding to a matrix, rounding of inputs.

Few rows: the time is that of reading the codes, which are decoded in registers. The tile of the weight is the left
operand (its rows the outputs), so that it need not pass through shared memory. With many rows one decodes the weight
once and leaves the product to cuBLAS: a fused product would decode it once per tile of rows.

A code is decoded by its bits: moved to the places of a wider float's exponent and mantissa they read as the value times
a power of two, subnormal ones included, as that float keeps no code aside for those exponents either. With few rows it
is the arithmetic that counts, so that 4-bit codes are moved two at a time, in assembly.

Shapes: M rows, K inputs, N outputs; codes (N, K) or, packed, (N, ceil(K / 2)).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fp_linear._format import FloatFormat
from kernels.gpu import INTERPRETED, dot

FEW_ROWS = 64  # above, decoding the whole weight once is the faster way
BLOCK = 1024  # elements a program of an elementwise kernel


@triton.jit
def _level(code, exponent: tl.constexpr, mantissa: tl.constexpr, dtype: tl.constexpr):
    """The values of codes in units of the highest binade, 2^(2^e - 1 - bias), as `dtype`."""
    bits: tl.constexpr = 1 + exponent + mantissa
    sign: tl.constexpr = 1 << (bits - 1)
    top: tl.constexpr = (1 << exponent) - 1
    if dtype == tl.float16 and exponent <= 4:
        code = code.to(tl.int16)
        moved = ((code & sign) << (16 - bits)) | ((code & (sign - 1)) << (10 - mantissa))
        level = moved.to(tl.float16, bitcast=True) * (2.0 ** (15 - top))
    elif dtype == tl.bfloat16 and not INTERPRETED:  # the interpreter cannot multiply bfloat16
        code = code.to(tl.int16)
        moved = ((code & sign) << (16 - bits)) | ((code & (sign - 1)) << (7 - mantissa))
        level = moved.to(tl.bfloat16, bitcast=True) * (2.0 ** (127 - top))
    else:
        code = code.to(tl.int32)
        moved = ((code & sign) << (32 - bits)) | ((code & (sign - 1)) << (23 - mantissa))
        level = (moved.to(tl.float32, bitcast=True) * (2.0 ** (127 - top))).to(dtype)
    return level


@triton.jit
def _tile(
    codes, n, start, row, N,
    exponent: tl.constexpr, mantissa: tl.constexpr, dtype: tl.constexpr, assembly: tl.constexpr,
    N_: tl.constexpr, K_: tl.constexpr,
):  # fmt: skip
    """The levels of the outputs n and the K_ inputs from `start` on; row: bytes of an output."""
    per_byte: tl.constexpr = 2 if exponent + mantissa == 3 else 1
    byte = start // per_byte + tl.arange(0, K_ // per_byte)
    inside = (n[:, None] < N) & (byte[None, :] < row)
    code = tl.load(codes + n[:, None].to(tl.int64) * row + byte[None, :], mask=inside, other=0)
    if per_byte == 1:
        level = _level(code, exponent, mantissa, dtype)
    else:
        if assembly is None:
            even = _level(code & 15, exponent, mantissa, dtype)
            odd = _level(code >> 4, exponent, mantissa, dtype)
        else:
            even, odd = tl.inline_asm_elementwise(
                assembly, "=r,=r,=r,=r,r", [code], dtype=(tl.int16, tl.int16), is_pure=True, pack=4
            )
            even, odd = even.to(dtype, bitcast=True), odd.to(dtype, bitcast=True)
        level = tl.reshape(tl.join(even, odd), (N_, K_))
    return level


@triton.jit
def _unit(exponent_bias, n, N, exponent: tl.constexpr, per_output: tl.constexpr):
    bias = tl.load(exponent_bias + n * per_output, mask=n < N, other=0.0).to(tl.float32)
    return tl.exp2((1 << exponent) - 1 - bias)


@triton.jit
def _finished(
    total, exponent_bias, bias, n, N, exponent: tl.constexpr, per_output: tl.constexpr, has_bias: tl.constexpr
):
    """Sums (N_, M_) of levels in their unit, plus bias."""
    total *= _unit(exponent_bias, n, N, exponent, per_output)[:, None]
    if has_bias:
        total += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[:, None]
    return total


@triton.jit
def _few_rows_kernel(
    x, codes, exponent_bias, bias, y, M, K, N, row, span,
    exponent: tl.constexpr, mantissa: tl.constexpr, assembly: tl.constexpr,
    per_output: tl.constexpr, has_bias: tl.constexpr, whole: tl.constexpr,
    M_: tl.constexpr, K_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    """One of several ranges of `span` inputs, whose sums go to y (ranges, M, N), or all of them: y (M, N)."""
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    m = tl.program_id(1) * M_ + tl.arange(0, M_)
    total = tl.zeros((N_, M_), dtype=tl.float32)
    first = tl.program_id(2) * span
    for start in range(first, tl.minimum(first + span, K), K_):
        k = start + tl.arange(0, K_)
        rows = x + m[None, :].to(tl.int64) * K + k[:, None]
        inputs = tl.load(rows, mask=(m[None, :] < M) & (k[:, None] < K), other=0.0)
        weight = _tile(codes, n, start, row, N, exponent, mantissa, x.dtype.element_ty, assembly, N_, K_)
        total = dot(weight, inputs, total)
    if whole:
        total = _finished(total, exponent_bias, bias, n, N, exponent, per_output, has_bias)
    at = (tl.program_id(2).to(tl.int64) * M + m[None, :]) * N + n[:, None]
    tl.store(y + at, total, mask=(n[:, None] < N) & (m[None, :] < M))


@triton.jit
def _combine_kernel(
    parts, exponent_bias, bias, y, M, N, splits,
    exponent: tl.constexpr, per_output: tl.constexpr, has_bias: tl.constexpr, M_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    m = tl.program_id(1) * M_ + tl.arange(0, M_)
    inside = (n[:, None] < N) & (m[None, :] < M)
    at = m[None, :].to(tl.int64) * N + n[:, None]
    total = tl.zeros((N_, M_), dtype=tl.float32)
    for _ in range(splits):
        total += tl.load(parts + at, mask=inside, other=0.0)
        parts += M * N
    total = _finished(total, exponent_bias, bias, n, N, exponent, per_output, has_bias)
    tl.store(y + at, total, mask=inside)


@triton.jit
def _decode_kernel(
    codes, exponent_bias, weight, K, N, row,
    exponent: tl.constexpr, mantissa: tl.constexpr, per_output: tl.constexpr, N_: tl.constexpr, K_: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    start = tl.program_id(1) * K_
    k = start + tl.arange(0, K_)
    level = _tile(codes, n, start, row, N, exponent, mantissa, tl.float32, None, N_, K_)
    value = level * _unit(exponent_bias, n, N, exponent, per_output)[:, None]
    inside = (n[:, None] < N) & (k[None, :] < K)
    tl.store(weight + n[:, None].to(tl.int64) * K + k[None, :], value, mask=inside)


@triton.jit
def _rounded(x, unit, exponent: tl.constexpr, mantissa: tl.constexpr):
    """(x in that unit, the nearest value): adding and taking away 1.5 * 2^(23 + k) rounds to a multiple of 2^k."""
    limit: tl.constexpr = 2.0 - 2.0**-mantissa
    scaled = x / unit
    clipped = tl.minimum(tl.maximum(scaled, -limit), limit)
    binade = tl.maximum(clipped.to(tl.int32, bitcast=True) & 0x7F800000, (129 - (1 << exponent)) << 23)
    shifter = (binade + (((23 - mantissa) << 23) + (1 << 22))).to(tl.float32, bitcast=True)
    return scaled, ((clipped + shifter) - shifter) * unit


@triton.jit
def _input_unit(exponent_bias, shift, at, K, exponent: tl.constexpr, has_shift: tl.constexpr):
    bias = tl.load(exponent_bias).to(tl.float32)
    if has_shift:
        bias += tl.load(shift + at % K).to(tl.float32)
    return tl.exp2((1 << exponent) - 1 - bias)


@triton.jit
def _quantize_kernel(
    x, exponent_bias, shift, y, size, K,
    exponent: tl.constexpr, mantissa: tl.constexpr, has_shift: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inputs = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32)
    unit = _input_unit(exponent_bias, shift, at, K, exponent, has_shift)
    tl.store(y + at, _rounded(inputs, unit, exponent, mantissa)[1], mask=at < size)


@triton.jit
def _quantize_backward_kernel(
    gy, x, exponent_bias, shift, g_x, g_bias, size, K,
    exponent: tl.constexpr, mantissa: tl.constexpr, has_shift: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """g_bias: what each program adds to the gradient of the exponent bias, over ln 2."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inputs = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32)
    upstream = tl.load(gy + at, mask=at < size, other=0.0).to(tl.float32)
    unit = _input_unit(exponent_bias, shift, at, K, exponent, has_shift)
    scaled, rounded = _rounded(inputs, unit, exponent, mantissa)
    inner = tl.where(tl.abs(scaled) <= 2.0 - 2.0**-mantissa, upstream, 0.0)
    tl.store(g_x + at, inner, mask=at < size)
    tl.store(g_bias + tl.program_id(0), tl.sum(inner * inputs - upstream * rounded, 0))


def _assembly(format: FloatFormat, dtype: torch.dtype) -> str | None:
    """Four bytes of two codes -> the levels of their low halves, then of their high ones, each as two 16-bit pairs."""
    if INTERPRETED.value or format.bits != 4 or dtype not in (torch.bfloat16, torch.float16):
        return None
    kind, mantissa, bias = ("bf16", 7, 127) if dtype == torch.bfloat16 else ("f16", 10, 15)
    move = mantissa - format.mantissa  # left, from the low half of a byte
    places, factor = (7 << move) * 0x10001, ((2 * bias - format.top) << mantissa) * 0x10001
    lines = [".reg .b32 byte, sign, rest, factor, zero;", f"mov.b32 factor, {factor};", "mov.b32 zero, 0x80008000;"]
    for pair, select in enumerate(("0x4140", "0x4342")):  # one byte in each half of a word
        lines.append(f"prmt.b32 byte, $4, 0, {select};")
        for half in range(2):
            lines += [f"shl.b32 sign, byte, {12 - 4 * half};", "and.b32 sign, sign, 0x80008000;"]
            lines += [f"shl.b32 rest, byte, {move - 4 * half};", f"and.b32 rest, rest, {places};"]
            lines += ["or.b32 rest, rest, sign;", f"fma.rn.{kind}x2 ${2 * half + pair}, rest, factor, zero;"]
    return "{ " + " ".join(lines) + " }"


def few_rows(x: Tensor, codes: Tensor, format: FloatFormat, exponent_bias: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K) times the transposed weight, plus bias: (M, N)."""
    (M, K), N = x.shape, codes.shape[0]
    y = x.new_empty(M, N)
    M_ = min(64, max(16, triton.next_power_of_2(M)))
    K_, N_ = (64, 16) if INTERPRETED.value else (64, 64) if x.dtype.itemsize == 4 else (256 if M_ == 16 else 128, 64)
    span, splits = _split(x, N, M_, K_, N_)
    grid = triton.cdiv(N, N_), triton.cdiv(M, M_)
    parts = y if splits == 1 else torch.empty(splits, M, N, dtype=torch.float32, device=x.device)
    _few_rows_kernel[(*grid, splits)](
        x, codes, exponent_bias, bias, parts, M, K, N, codes.shape[1], span,
        format.exponent, format.mantissa, _assembly(format, x.dtype),
        exponent_bias.dim(), bias is not None, splits == 1,
        M_=M_, K_=K_, N_=N_, num_warps=4, num_stages=4,
    )  # fmt: skip
    if splits > 1:
        _combine_kernel[grid](
            parts, exponent_bias, bias, y, M, N, splits,
            format.exponent, exponent_bias.dim(), bias is not None, M_=M_, N_=N_,
        )  # fmt: skip
    return y


def _split(x: Tensor, N: int, M_: int, K_: int, N_: int) -> tuple[int, int]:
    """(inputs of a range, ranges): as many as give every multiprocessor two programs, of four steps at least."""
    M, K = x.shape
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132
    wanted = 2 * processors // (triton.cdiv(N, N_) * triton.cdiv(M, M_))
    span = K_ * triton.cdiv(triton.cdiv(K, max(1, min(wanted, K // (4 * K_)))), K_)
    return span, triton.cdiv(K, span)


def decoded(codes: Tensor, format: FloatFormat, exponent_bias: Tensor, inputs: int, dtype: torch.dtype) -> Tensor:
    """The weight (N, K)."""
    N = codes.shape[0]
    weight = torch.empty(N, inputs, dtype=dtype, device=codes.device)
    N_, K_ = 8, 256
    _decode_kernel[(triton.cdiv(N, N_), triton.cdiv(inputs, K_))](
        codes, exponent_bias, weight, inputs, N, codes.shape[1],
        format.exponent, format.mantissa, exponent_bias.dim(), N_=N_, K_=K_, num_warps=4,
    )  # fmt: skip
    return weight


def quantized(x: Tensor, format: FloatFormat, exponent_bias: Tensor, shift: Tensor | None) -> Tensor:
    """x, contiguous, rounded."""
    y = torch.empty_like(x)
    _quantize_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x, exponent_bias, shift, y, x.numel(), x.shape[-1],
        format.exponent, format.mantissa, shift is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return y


def quantized_backward(
    gy: Tensor, x: Tensor, format: FloatFormat, exponent_bias: Tensor, shift: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the exponent bias; gy and x contiguous."""
    programs = triton.cdiv(x.numel(), BLOCK)
    g_x, g_bias = torch.empty_like(x), torch.empty(programs, dtype=torch.float32, device=x.device)
    _quantize_backward_kernel[(programs,)](
        gy, x, exponent_bias, shift, g_x, g_bias, x.numel(), x.shape[-1],
        format.exponent, format.mantissa, shift is not None, BLOCK=BLOCK,
    )  # fmt: skip
    return g_x, (math.log(2) * g_bias.sum()).to(exponent_bias.dtype)
