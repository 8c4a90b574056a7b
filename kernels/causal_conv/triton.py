"""The causal convolution on a GPU: few taps as sums of shifted rows, many as products with blocks of Toeplitz matrices.

Many taps: tokens are cut into blocks of TILE; block i of y is sum_k T_k (block i - k of u), where T_k (TILE, TILE)
holds the taps k TILE + t - s. The blocks of all sequences stand side by side as the columns of one matrix product per
k, which fills tensor cores for a single sequence too. The gradient of u is the same sum with time reversed; that of the
kernel is a product of Toeplitz blocks of u with blocks of the gradient. Sums over tokens and sequences are made in
parts and added in a fixed order.

Shapes: B batch, T tokens, G channels of u, C of y, L taps. Many taps work on (channels, B, T).
"""

import torch
import triton
from torch import Tensor

from kernels import gpu
from kernels.causal_conv._kernels import rows, rows_kernel_gradient, toeplitz, toeplitz_kernel_gradient

PRIORITY = 20
REQUIRES = gpu.REQUIRES
FEW = 4 if gpu.INTERPRETED.value else 32  # taps
TILE, SPAN = (16, 16) if gpu.INTERPRETED.value else (64, 1024)
PARTS = 8  # of the sequences, in the gradient of a long kernel


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return gpu.runs(device, dtype)


def causal_conv(u: Tensor, kernel: Tensor) -> Tensor:
    kernel = kernel[:, : max(1, u.shape[1])].to(u.dtype)
    if kernel.shape[1] <= FEW:  # depthwise: each channel of y has its own of u
        u = u.repeat_interleave(len(kernel) // u.shape[2], dim=2) if len(kernel) > u.shape[2] else u
    return _forward(u, kernel)


def _by_rows(u: Tensor, kernel: Tensor, reverse: bool) -> Tensor:
    """sum_j kernel_j u_(t - j), or u_(t + j) in reverse, of (B, T, C)."""
    out = torch.empty_like(u)
    (B, T, C), L = u.shape, kernel.shape[1]
    block_t, block_c = min(32, TILE), min(64, triton.next_power_of_2(C))
    grid = triton.cdiv(T, block_t), triton.cdiv(C, block_c), B
    rows[grid](u, kernel, out, T, C, L, REVERSE=reverse, BLOCK_T=block_t, BLOCK_C=block_c)
    return out


def _rows_kernel_gradient(u: Tensor, gy: Tensor, L: int) -> Tensor:
    (B, T, C), spans = u.shape, triton.cdiv(u.shape[1], SPAN)
    block_c = min(64, triton.next_power_of_2(C))
    parts = u.new_empty(B * spans, C, L, dtype=torch.float32)
    rows_kernel_gradient[B * spans, triton.cdiv(C, block_c), L](
        u, gy, parts, T, C, L, spans, SPAN=SPAN, BLOCK_T=min(32, TILE), BLOCK_C=block_c
    )
    return parts.sum(0)


def _by_blocks(u: Tensor, kernel: Tensor, reverse: bool) -> Tensor:
    """The same of (channels, B, T), the channels of u being shared by those of the kernel -> (C, B, T)."""
    (G, B, T), (C, L) = u.shape, kernel.shape
    out = u.new_empty(C, B, T)
    blocks = triton.cdiv(T, TILE)
    width = max(16, min(TILE, triton.next_power_of_2(B * blocks)))
    grid = C, triton.cdiv(B * blocks, width)
    toeplitz[grid](u, kernel, out, B, T, L, C // G, blocks, REVERSE=reverse, TILE=TILE, WIDTH=width, num_warps=8)
    return out


def _blocks_kernel_gradient(u: Tensor, gy: Tensor, L: int) -> Tensor:
    (G, B, T), C = u.shape, len(gy)
    splits, width = min(B, PARTS), max(16, min(TILE, triton.next_power_of_2(triton.cdiv(L, TILE))))
    parts = u.new_empty(splits, C, L, dtype=torch.float32)
    grid = C, triton.cdiv(triton.cdiv(L, TILE), width), splits
    toeplitz_kernel_gradient[grid](u, gy, parts, B, T, L, C // G, triton.cdiv(T, TILE), splits, TILE=TILE, WIDTH=width)
    return parts.sum(0)


@torch.library.custom_op("runner::causal_conv", mutates_args=())
def _forward(u: Tensor, kernel: Tensor) -> Tensor:
    if not u.numel():
        return _forward_like(u, kernel)
    if kernel.shape[1] <= FEW:
        return _by_rows(u.contiguous(), kernel.contiguous(), reverse=False)
    y = _by_blocks(u.permute(2, 0, 1).contiguous(), kernel.contiguous(), reverse=False)
    return y.permute(1, 2, 0).contiguous()


@_forward.register_fake
def _forward_like(u: Tensor, kernel: Tensor) -> Tensor:
    return u.new_empty(*u.shape[:2], kernel.shape[0])


@torch.library.custom_op("runner::causal_conv_backward", mutates_args=())
def _backward(u: Tensor, kernel: Tensor, gy: Tensor, for_u: bool, for_kernel: bool) -> tuple[Tensor, Tensor]:
    """The gradients of u and kernel, empty where not asked for."""
    g_u, g_kernel = _backward_like(u, kernel, gy, for_u, for_kernel)
    if not u.numel():
        return g_u, g_kernel.zero_()
    kernel, L = kernel.contiguous(), kernel.shape[1]
    if L <= FEW:
        u, gy = u.contiguous(), gy.contiguous()
        g_u = _by_rows(gy, kernel, reverse=True) if for_u else g_u
        return g_u, _rows_kernel_gradient(u, gy, L).to(kernel.dtype) if for_kernel else g_kernel
    u, gy = (x.permute(2, 0, 1).contiguous() for x in (u, gy))
    if for_u:  # the channels of y that share one of u are added
        shared = _by_blocks(gy, kernel, reverse=True).unflatten(0, (len(u), -1))
        g_u = shared.sum(1, dtype=torch.float32).to(u.dtype).permute(1, 2, 0).contiguous()
    return g_u, _blocks_kernel_gradient(u, gy, L).to(kernel.dtype) if for_kernel else g_kernel


@_backward.register_fake
def _backward_like(u: Tensor, kernel: Tensor, gy: Tensor, for_u: bool, for_kernel: bool) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape if for_u else (0,)), kernel.new_empty(kernel.shape if for_kernel else (0,))


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, gy: Tensor) -> tuple[Tensor | None, Tensor | None]:
    asked = ctx.needs_input_grad
    gradients = _backward(*ctx.saved_tensors, gy, *asked)
    return tuple(g if wanted else None for g, wanted in zip(gradients, asked, strict=True))


_forward.register_autograd(_differentiate, setup_context=_save)
