"""The backward kernels of stripe attention, which compute the weights again from the scores and the log-sum-exp.

A program per tile of keys gives dk, dv and its share of LePE's gradients; these are summed afterwards, in an order that
does not depend on which program was first. Where a tile is the whole stripe it gives dq as well, and that is all;
otherwise a program per tile of queries goes first, for dq and delta_i = sum_j P_ij dP_ij.
Shapes: B batch, h heads of a branch, N = H * W pixels, d head dimension.
"""

import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu
from kernels.stripe_attention._forward import LOG2E
from kernels.stripe_attention._stripes import Branch
from kernels.stripe_attention._tiles import corner, load, meta, places, store


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    branch: Branch,
    size: tuple[int, int],
    scale: float,
) -> Tensor | None:
    """Writes dq, dk, dv (B, h, N, d) of one branch; gives LePE's gradients (h, 10, d): nine taps and the bias."""
    B, h, _, d = q.shape
    options = meta(branch, size, d, q.element_size())
    grid = (h, branch.rows * branch.columns * options["TILES"], B)
    strides = (*grad.stride(), *q.stride(), *k.stride(), *v.stride(), *lse.stride(), *dq.stride())  # all d* lie alike
    delta = lse if options["TILES"] == 1 else lse.new_empty(lse.shape).as_strided(lse.shape, lse.stride())
    if options["TILES"] > 1:
        _queries[grid](grad, q, k, v, lse, delta, dq, *strides, scale * LOG2E, scale, **options)
    # gradients of the nine taps and the bias from each program
    lepe = lse if weight is None else lse.new_zeros(h, B * grid[1], 10, d)
    _keys[grid](
        grad,
        q,
        k,
        v,
        lse,
        delta,
        q if weight is None else weight,
        dq,
        dk,
        dv,
        lepe,
        *strides,
        scale * LOG2E,
        scale,
        LEPE=weight is not None,
        **options,
    )
    return None if weight is None else lepe.sum(1)


@triton.jit
def _weights(q, k, lse, j, scale, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """softmax(scale * q k^T), (queries, keys), from the log-sum-exp; zero for what is no pixel of the stripe."""
    scores = gpu.dot(q, tl.trans(k), tl.zeros((BLOCK, BLOCK), tl.float32)) * scale
    return tl.where((j < HEIGHT * WIDTH)[None, :], tl.exp2(scores - lse[:, None] * 1.4426950408889634), 0.0)


@triton.jit
def _queries(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
    grad_b,
    grad_h,
    grad_n,
    grad_d,
    q_b,
    q_h,
    q_n,
    q_d,
    k_b,
    k_h,
    k_n,
    k_d,
    v_b,
    v_h,
    v_n,
    v_d,
    lse_b,
    lse_h,
    lse_n,
    d_b,
    d_h,
    d_n,
    d_d,
    scale2,  # scale * log2(e)
    scale,
    H,
    W,
    columns,
    top,
    left,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_WIDTH: tl.constexpr,
):
    """dq and delta of a tile of queries: one pass over the keys for delta, one for dq."""
    head = tl.program_id(0).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    row, column, tile = corner(columns, top, left, HEIGHT, WIDTH, TILES)
    k_ptr += b * k_b + head * k_h
    v_ptr += b * v_b + head * v_h
    i = tile * BLOCK + tl.arange(0, BLOCK)
    place, there = places(i, 0, 0, row, column, H, W, HEIGHT, WIDTH)
    q = load(q_ptr + b * q_b + head * q_h, place, there, q_n, q_d, D, D_WIDTH)
    grad = load(grad_ptr + b * grad_b + head * grad_h, place, there, grad_n, grad_d, D, D_WIDTH)
    rows = b * lse_b + head * lse_h + place * lse_n
    lse = tl.load(lse_ptr + rows, mask=there, other=float("inf"))
    delta = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, HEIGHT * WIDTH, BLOCK):
        j = start + tl.arange(0, BLOCK)
        key, key_there = places(j, 0, 0, row, column, H, W, HEIGHT, WIDTH)
        k = load(k_ptr, key, key_there, k_n, k_d, D, D_WIDTH)
        v = load(v_ptr, key, key_there, v_n, v_d, D, D_WIDTH)
        weights = _weights(q, k, lse, j, scale2, HEIGHT, WIDTH, BLOCK)
        d_weights = gpu.dot(grad, tl.trans(v), tl.zeros((BLOCK, BLOCK), tl.float32))
        delta += tl.sum(weights * d_weights, 1)
    dq = tl.zeros((BLOCK, D_WIDTH), tl.float32)
    for start in range(0, HEIGHT * WIDTH, BLOCK):
        j = start + tl.arange(0, BLOCK)
        key, key_there = places(j, 0, 0, row, column, H, W, HEIGHT, WIDTH)
        k = load(k_ptr, key, key_there, k_n, k_d, D, D_WIDTH)
        v = load(v_ptr, key, key_there, v_n, v_d, D, D_WIDTH)
        weights = _weights(q, k, lse, j, scale2, HEIGHT, WIDTH, BLOCK)
        d_weights = gpu.dot(grad, tl.trans(v), tl.zeros((BLOCK, BLOCK), tl.float32))
        d_scores = weights * (d_weights - delta[:, None]) * scale
        dq = gpu.dot(d_scores.to(k.dtype), k, dq)
    store(dq_ptr + b * d_b + head * d_h, place, there, d_n, d_d, dq, D, D_WIDTH)
    tl.store(delta_ptr + rows, delta, mask=there)


@triton.jit
def _keys(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    delta_ptr,
    weight_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    lepe_ptr,
    grad_b,
    grad_h,
    grad_n,
    grad_d,
    q_b,
    q_h,
    q_n,
    q_d,
    k_b,
    k_h,
    k_n,
    k_d,
    v_b,
    v_h,
    v_n,
    v_d,
    lse_b,
    lse_h,
    lse_n,
    d_b,
    d_h,
    d_n,
    d_d,
    scale2,  # scale * log2(e)
    scale,
    H,
    W,
    columns,
    top,
    left,
    LEPE: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_WIDTH: tl.constexpr,
):
    """dk and dv of a tile of keys, its share of LePE's gradients, and dq where the tile is the stripe."""
    head = tl.program_id(0).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    row, column, tile = corner(columns, top, left, HEIGHT, WIDTH, TILES)
    grad_ptr += b * grad_b + head * grad_h
    q_ptr += b * q_b + head * q_h
    d_head = b * d_b + head * d_h
    lse_head = b * lse_b + head * lse_h
    j = tile * BLOCK + tl.arange(0, BLOCK)
    key, key_there = places(j, 0, 0, row, column, H, W, HEIGHT, WIDTH)
    k = load(k_ptr + b * k_b + head * k_h, key, key_there, k_n, k_d, D, D_WIDTH)
    v = load(v_ptr + b * v_b + head * v_h, key, key_there, v_n, v_d, D, D_WIDTH)
    dk = tl.zeros((BLOCK, D_WIDTH), tl.float32)
    dv = tl.zeros((BLOCK, D_WIDTH), tl.float32)
    for start in range(0, HEIGHT * WIDTH, BLOCK):
        i = start + tl.arange(0, BLOCK)
        place, there = places(i, 0, 0, row, column, H, W, HEIGHT, WIDTH)
        q = load(q_ptr, place, there, q_n, q_d, D, D_WIDTH)
        grad = load(grad_ptr, place, there, grad_n, grad_d, D, D_WIDTH)
        lse = tl.load(lse_ptr + lse_head + place * lse_n, mask=there, other=float("inf"))
        weights = _weights(q, k, lse, j, scale2, HEIGHT, WIDTH, BLOCK)
        d_weights = gpu.dot(grad, tl.trans(v), tl.zeros((BLOCK, BLOCK), tl.float32))
        if TILES == 1:
            delta = tl.sum(weights * d_weights, 1)
        else:
            delta = tl.load(delta_ptr + lse_head + place * lse_n, mask=there, other=0.0)
        d_scores = (weights * (d_weights - delta[:, None]) * scale).to(q.dtype)
        dv = gpu.dot(tl.trans(weights.to(grad.dtype)), grad, dv)
        dk = gpu.dot(tl.trans(d_scores), q, dk)
        if TILES == 1:
            dq = gpu.dot(d_scores, k, tl.zeros((BLOCK, D_WIDTH), tl.float32))
            store(dq_ptr + d_head, place, there, d_n, d_d, dq, D, D_WIDTH)
    if LEPE:
        i_d = tl.arange(0, D_WIDTH)
        program = (head * tl.num_programs(2) + b) * tl.num_programs(1) + tl.program_id(1)
        lepe_ptr += program * 10 * D + i_d
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                if (HEIGHT > 1 or dy == 1) and (
                    WIDTH > 1 or dx == 1
                ):  # the tap takes v_j to the pixel on the other side
                    near, near_there = places(j, 1 - dy, 1 - dx, row, column, H, W, HEIGHT, WIDTH)
                    g = load(grad_ptr, near, near_there, grad_n, grad_d, D, D_WIDTH).to(tl.float32)
                    tap = tl.load(weight_ptr + (head * D + i_d) * 9 + dy * 3 + dx, mask=i_d < D, other=0.0)
                    dv += g * tap.to(tl.float32)[None, :]
                    tl.store(lepe_ptr + (dy * 3 + dx) * D, tl.sum(g * v.to(tl.float32), 0), mask=i_d < D)
                    if dy == 1 and dx == 1:
                        tl.store(lepe_ptr + 9 * D, tl.sum(g, 0), mask=i_d < D)
    store(dk_ptr + d_head, key, key_there, d_n, d_d, dk, D, D_WIDTH)
    store(dv_ptr + d_head, key, key_there, d_n, d_d, dv, D, D_WIDTH)
