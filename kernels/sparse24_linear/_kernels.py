"""Triton kernels of the 2:4 linear layer: a product for few rows, unpacking to a matrix, picking what is kept of one.

Few rows: the time is that of reading the packed weight, which is spread to a dense tile in registers, the left operand
of the product (its rows the outputs), so that it need not pass through shared memory. With many rows one unpacks the
weight once and leaves the product to cuBLAS.

Shapes: M rows, K inputs, N outputs; values (N, K / 2), indices (N, ceil(K / 8)).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.gpu import INTERPRETED, dot

FEW_ROWS = 64  # above, unpacking the whole weight once is the faster way


@triton.jit
def _places(indices, n, start, row, N, N_: tl.constexpr, K_: tl.constexpr):
    """Where of 0..3 the two kept weights of each of K_ / 4 groups are; row: bytes of an output."""
    b = start // 8 + tl.arange(0, K_ // 8)
    inside = (n[:, None] < N) & (b[None, :] < row)
    byte = tl.load(indices + n[:, None].to(tl.int64) * row + b[None, :], mask=inside, other=0).to(tl.int32)
    nibble = tl.reshape(tl.join(byte & 15, byte >> 4), (N_, K_ // 4))
    return nibble & 3, nibble >> 2


@triton.jit
def _tile(values, indices, n, start, N, K, row, dtype: tl.constexpr, N_: tl.constexpr, K_: tl.constexpr):
    """The dense weights (N_, K_) of the outputs n and the K_ inputs from `start` on."""
    v = start // 2 + tl.arange(0, K_ // 2)
    inside = (n[:, None] < N) & (v[None, :] < K // 2)
    kept = tl.load(values + n[:, None].to(tl.int64) * (K // 2) + v[None, :], mask=inside, other=0)
    if values.dtype.element_ty == tl.int8:
        kept = kept.to(tl.float32).to(dtype)
    first, second = tl.split(tl.reshape(kept, (N_, K_ // 4, 2)))
    i, j = _places(indices, n, start, row, N, N_, K_)
    zero = tl.zeros_like(first)
    w0 = tl.where(i == 0, first, zero)
    w1 = tl.where(i == 1, first, tl.where(j == 1, second, zero))
    w2 = tl.where(i == 2, first, tl.where(j == 2, second, zero))
    w3 = tl.where(j == 3, second, zero)
    return tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (N_, K_))


@triton.jit
def _finished(total, scale, bias, n, N, has_scale: tl.constexpr, has_bias: tl.constexpr):
    """Sums (N_, M_) times scale, plus bias."""
    if has_scale:
        total *= tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[:, None]
    if has_bias:
        total += tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32)[:, None]
    return total


@triton.jit
def _few_rows_kernel(
    x, values, indices, scale, bias, y, M, K, N, row, span,
    has_scale: tl.constexpr, has_bias: tl.constexpr, whole: tl.constexpr,
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
        weight = _tile(values, indices, n, start, N, K, row, x.dtype.element_ty, N_, K_)
        total = dot(weight, inputs, total)
    if whole:
        total = _finished(total, scale, bias, n, N, has_scale, has_bias)
    at = (tl.program_id(2).to(tl.int64) * M + m[None, :]) * N + n[:, None]
    tl.store(y + at, total, mask=(n[:, None] < N) & (m[None, :] < M))


@triton.jit
def _combine_kernel(
    parts, scale, bias, y, M, N, splits,
    has_scale: tl.constexpr, has_bias: tl.constexpr, M_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    m = tl.program_id(1) * M_ + tl.arange(0, M_)
    inside = (n[:, None] < N) & (m[None, :] < M)
    at = m[None, :].to(tl.int64) * N + n[:, None]
    total = tl.zeros((N_, M_), dtype=tl.float32)
    for _ in range(splits):
        total += tl.load(parts + at, mask=inside, other=0.0)
        parts += M * N
    tl.store(y + at, _finished(total, scale, bias, n, N, has_scale, has_bias), mask=inside)


@triton.jit
def _unpack_kernel(
    values, indices, scale, weight, K, N, row, has_scale: tl.constexpr, N_: tl.constexpr, K_: tl.constexpr
):  # fmt: skip
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    start = tl.program_id(1) * K_
    k = start + tl.arange(0, K_)
    tile = _tile(values, indices, n, start, N, K, row, tl.float32, N_, K_)
    if has_scale:
        tile = tile.to(tl.float32) * tl.load(scale + n, mask=n < N, other=0.0).to(tl.float32)[:, None]
    inside = (n[:, None] < N) & (k[None, :] < K)
    tl.store(weight + n[:, None].to(tl.int64) * K + k[None, :], tile, mask=inside)


@triton.jit
def _keep_kernel(dense, indices, values, K, N, row, N_: tl.constexpr, K_: tl.constexpr):
    n = tl.program_id(0) * N_ + tl.arange(0, N_)
    start = tl.program_id(1) * K_
    g = start // 4 + tl.arange(0, K_ // 4)
    inside = (n[:, None] < N) & (g[None, :] < K // 4)
    i, j = _places(indices, n, start, row, N, N_, K_)
    group = dense + n[:, None].to(tl.int64) * K + 4 * g[None, :]
    pair = values + n[:, None].to(tl.int64) * (K // 2) + 2 * g[None, :]
    tl.store(pair, tl.load(group + i, mask=inside, other=0.0), mask=inside)
    tl.store(pair + 1, tl.load(group + j, mask=inside, other=0.0), mask=inside)


def few_rows(x: Tensor, values: Tensor, indices: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    """x (M, K) times the transposed weight, plus bias: (M, N)."""
    (M, K), N = x.shape, values.shape[0]
    y = x.new_empty(M, N)
    M_ = min(64, max(16, triton.next_power_of_2(M)))
    K_, N_ = (64, 16) if INTERPRETED.value else (64, 64) if x.dtype.itemsize == 4 else (256 if M_ == 16 else 128, 64)
    span, splits = _split(x, N, M_, K_, N_)
    grid = triton.cdiv(N, N_), triton.cdiv(M, M_)
    parts = y if splits == 1 else torch.empty(splits, M, N, dtype=torch.float32, device=x.device)
    _few_rows_kernel[(*grid, splits)](
        x, values, indices, scale, bias, parts, M, K, N, indices.shape[1], span,
        scale is not None, bias is not None, splits == 1, M_=M_, K_=K_, N_=N_, num_warps=4, num_stages=3,
    )  # fmt: skip
    if splits > 1:
        options = scale is not None, bias is not None
        _combine_kernel[grid](parts, scale, bias, y, M, N, splits, *options, M_=M_, N_=N_)
    return y


def _split(x: Tensor, N: int, M_: int, K_: int, N_: int) -> tuple[int, int]:
    """(inputs of a range, ranges): as many as give every multiprocessor two programs, of four steps at least."""
    M, K = x.shape
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 132
    wanted = 2 * processors // (triton.cdiv(N, N_) * triton.cdiv(M, M_))
    span = K_ * triton.cdiv(triton.cdiv(K, max(1, min(wanted, K // (4 * K_)))), K_)
    return span, triton.cdiv(K, span)


def unpacked(values: Tensor, indices: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight (N, K), times `scale` where given."""
    N, K = values.shape[0], 2 * values.shape[1]
    weight = torch.empty(N, K, dtype=dtype, device=values.device)
    N_, K_ = 8, 256
    grid = (triton.cdiv(N, N_), triton.cdiv(K, K_))
    row = indices.shape[1]
    _unpack_kernel[grid](values, indices, scale, weight, K, N, row, scale is not None, N_=N_, K_=K_, num_warps=4)
    return weight


def kept(dense: Tensor, indices: Tensor) -> Tensor:
    """Of a matrix (N, K) the values (N, K / 2) that are kept."""
    N, K = dense.shape
    values = dense.new_empty(N, K // 2)
    N_, K_ = 8, 256
    grid = (triton.cdiv(N, N_), triton.cdiv(K, K_))
    _keep_kernel[grid](dense, indices, values, K, N, indices.shape[1], N_=N_, K_=K_)
    return values
