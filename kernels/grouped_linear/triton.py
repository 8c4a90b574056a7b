"""Grouped products in Triton: a program finds its expert from the counts on the device.

The rows are covered by tiles of which none holds rows of two experts. How many tiles that makes only the device knows,
at most ceil(N / BLOCK_M) + e; the programs that are too many stop at once. Rows after the last expert's count as one
more expert without weights: they get zeros. Accumulates in float32; same sums in the same order on every run.

Shapes: N rows, e experts, m outputs and k inputs of a product (forward x W^T and backward gy W are one op).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu

PRIORITY = 20
REQUIRES = gpu.REQUIRES


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return gpu.runs(device, dtype)


def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None = None) -> Tensor:
    return _product(x, weight, counts, bias)


@triton.jit
def _first_row(counts, index, expert):
    return tl.sum(tl.where(index < expert, counts, 0))


@triton.jit
def _product_kernel(
    x_ptr, w_ptr, counts_ptr, b_ptr, y_ptr, N, M, K, e, stride_e, stride_m, stride_k,
    HAS_BIAS: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(M, BLOCK_M)
    tile = tl.program_id(0) // column_tiles  # neighbours share rows of x
    index = tl.arange(0, BLOCK_E)
    counts = tl.load(counts_ptr + index, mask=index < e, other=0).to(tl.int32)
    counts = tl.where(index == e, tl.maximum(N - tl.sum(counts), 0), counts)
    tiles = (counts + BLOCK_N - 1) // BLOCK_N
    expert = tl.sum((tl.cumsum(tiles) <= tile).to(tl.int32))
    if expert > e:
        return
    first = _first_row(counts, index, expert)
    end = tl.minimum(_first_row(counts, index, expert + 1), N)
    rows = first + (tile - _first_row(tiles, index, expert)) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = (tl.program_id(0) % column_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    acc = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if expert < e:
        x_rows = x_ptr + rows[:, None].to(tl.int64) * K
        w_columns = w_ptr + expert.to(tl.int64) * stride_e + columns[None, :].to(tl.int64) * stride_m
        for start in range(0, K, BLOCK_K):
            inner = start + tl.arange(0, BLOCK_K)
            x = tl.load(x_rows + inner[None, :], mask=(rows < end)[:, None] & (inner < K)[None, :], other=0.0)
            w_mask = (inner < K)[:, None] & (columns < M)[None, :]
            w = tl.load(w_columns + inner[:, None] * stride_k, mask=w_mask, other=0.0)
            acc = gpu.dot(x, w, acc)
        if HAS_BIAS:
            bias = tl.load(b_ptr + expert.to(tl.int64) * M + columns, mask=columns < M, other=0.0)
            acc += bias.to(tl.float32)[None, :]
    y_mask = (rows < end)[:, None] & (columns < M)[None, :]
    y = acc.to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + rows[:, None].to(tl.int64) * M + columns[None, :], y, mask=y_mask)


@triton.jit
def _weight_gradient_kernel(
    gy_ptr, x_ptr, counts_ptr, gw_ptr, N, M, K, e,
    BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    m_tiles, k_tiles = tl.cdiv(M, BLOCK_M), tl.cdiv(K, BLOCK_K)
    expert = tl.program_id(0) // (m_tiles * k_tiles)
    outputs = (tl.program_id(0) // k_tiles % m_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    inputs = (tl.program_id(0) % k_tiles) * BLOCK_K + tl.arange(0, BLOCK_K)
    index = tl.arange(0, BLOCK_E)
    counts = tl.load(counts_ptr + index, mask=index < e, other=0).to(tl.int32)
    first = _first_row(counts, index, expert)
    end = tl.minimum(_first_row(counts, index, expert + 1), N)
    acc = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for start in range(first, end, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        here = rows.to(tl.int64)
        gy_mask = (outputs < M)[:, None] & (rows < end)[None, :]
        gy = tl.load(gy_ptr + here[None, :] * M + outputs[:, None], mask=gy_mask, other=0.0)
        x_mask = (rows < end)[:, None] & (inputs < K)[None, :]
        x = tl.load(x_ptr + here[:, None] * K + inputs[None, :], mask=x_mask, other=0.0)
        acc = gpu.dot(gy, x, acc)
    gw_rows = gw_ptr + (expert.to(tl.int64) * M + outputs[:, None]) * K
    gw_mask = (outputs < M)[:, None] & (inputs < K)[None, :]
    tl.store(gw_rows + inputs[None, :], acc.to(gw_ptr.dtype.element_ty), mask=gw_mask)


@triton.jit
def _bias_gradient_kernel(
    gy_ptr, counts_ptr, gb_ptr, N, M, e, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr
):
    expert = tl.program_id(0)
    outputs = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    index = tl.arange(0, BLOCK_E)
    counts = tl.load(counts_ptr + index, mask=index < e, other=0).to(tl.int32)
    first = _first_row(counts, index, expert)
    end = tl.minimum(_first_row(counts, index, expert + 1), N)
    acc = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(first, end, BLOCK_N):
        rows = start + tl.arange(0, BLOCK_N)
        mask = (rows < end)[:, None] & (outputs < M)[None, :]
        gy = tl.load(gy_ptr + rows[:, None].to(tl.int64) * M + outputs[None, :], mask=mask, other=0.0)
        acc += tl.sum(gy.to(tl.float32), 0)
    tl.store(gb_ptr + expert.to(tl.int64) * M + outputs, acc.to(gb_ptr.dtype.element_ty), mask=outputs < M)


@torch.library.custom_op("runner::grouped_linear_triton", mutates_args=())
def _product(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, k), weight (e, m, k), strided as it likes -> (N, m)."""
    (N, K), (e, M, _) = x.shape, weight.shape
    y = x.new_empty(N, M)
    if y.numel() == 0:
        return y
    block_n, block_m, block_k, options = _product_blocks(N // e, M, x.dtype)
    grid = ((triton.cdiv(N, block_n) + e) * triton.cdiv(M, block_m),)
    _product_kernel[grid](
        x.contiguous(), weight, counts.contiguous(), x if bias is None else bias.contiguous(), y,
        N, M, K, e, *weight.stride(),
        HAS_BIAS=bias is not None, BLOCK_E=triton.next_power_of_2(e + 1),
        BLOCK_N=block_n, BLOCK_M=block_m, BLOCK_K=block_k, **options,
    )  # fmt: skip
    return y


@_product.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("runner::grouped_linear_triton_weight_gradient", mutates_args=())
def _weight_gradient(gy: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """gy (N, m), x (N, k) -> (e, m, k)."""
    (N, M), K, e = gy.shape, x.shape[1], counts.numel()
    gw = x.new_empty(e, M, K)
    block_n, block_m, block_k, options = _gradient_blocks(x.dtype)
    _weight_gradient_kernel[(e * triton.cdiv(M, block_m) * triton.cdiv(K, block_k),)](
        gy.contiguous(), x.contiguous(), counts.contiguous(), gw, N, M, K, e,
        BLOCK_E=triton.next_power_of_2(e + 1), BLOCK_N=block_n, BLOCK_M=block_m, BLOCK_K=block_k, **options,
    )  # fmt: skip
    return gw


@_weight_gradient.register_fake
def _(gy: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.numel(), gy.shape[1], x.shape[1])


@torch.library.custom_op("runner::grouped_linear_triton_bias_gradient", mutates_args=())
def _bias_gradient(gy: Tensor, counts: Tensor) -> Tensor:
    """gy (N, m) -> (e, m)."""
    (N, M), e = gy.shape, counts.numel()
    gb = gy.new_empty(e, M)
    block_m = 32
    _bias_gradient_kernel[(e, triton.cdiv(M, block_m))](
        gy.contiguous(), counts.contiguous(), gb, N, M, e,
        BLOCK_E=triton.next_power_of_2(e + 1), BLOCK_N=128, BLOCK_M=block_m,
    )  # fmt: skip
    return gb


@_bias_gradient.register_fake
def _(gy: Tensor, counts: Tensor) -> Tensor:
    return gy.new_empty(counts.numel(), gy.shape[1])


def _setup_context(ctx, inputs, output) -> None:
    x, weight, counts, _ = inputs
    ctx.save_for_backward(x, weight, counts)


def _backward(ctx, gy: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, counts = ctx.saved_tensors
    gx = _product(gy, weight.transpose(1, 2), counts, None) if ctx.needs_input_grad[0] else None
    gw = _weight_gradient(gy, x, counts) if ctx.needs_input_grad[1] else None
    gb = _bias_gradient(gy, counts) if ctx.needs_input_grad[3] else None
    return gx, gw, None, gb


_product.register_autograd(_backward, setup_context=_setup_context)


def _product_blocks(rows: int, M: int, dtype: torch.dtype) -> tuple[int, int, int, dict[str, int]]:
    """(BLOCK_N, BLOCK_M, BLOCK_K, options) for experts of about that many rows and M outputs."""
    if gpu.INTERPRETED.value:
        return 16, 32, 32, {}
    if dtype == torch.float32:  # no tensor cores
        return 64, 64, 32, {"num_warps": 4, "num_stages": 3}
    if rows < 64:
        return 32, 128, 64, {"num_warps": 4, "num_stages": 4}
    if M < 256 or rows < 128:
        return 64 if rows < 128 else 128, 128, 64, {"num_warps": 4, "num_stages": 4}
    return 128, 256, 64, {"num_warps": 8, "num_stages": 3}


def _gradient_blocks(dtype: torch.dtype) -> tuple[int, int, int, dict[str, int]]:
    """(BLOCK_N, BLOCK_M, BLOCK_K, options): here the rows are what is summed over."""
    if gpu.INTERPRETED.value:
        return 16, 32, 32, {}
    if dtype == torch.float32:
        return 32, 64, 64, {"num_warps": 4, "num_stages": 3}
    return 64, 128, 128, {"num_warps": 8, "num_stages": 4}
