"""The selective scan on a GPU: one launch forward, one backward, D and z within them.

A program owns some channels of one sequence with all their states and walks along the tokens tile by tile; within a
tile the recurrence is an associative scan in registers. Forward keeps the state before each tile (1 / TILE of all
states), from which backward computes the others again. The states are float32. Sums over channels (gradients of B, C)
and over sequences (A, D) are written in parts and added afterwards, in a fixed order.

Shapes: B batch, T tokens, C channels, n states; a tile is (TILE tokens, BLOCK_C channels, BLOCK_N states).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import gpu

PRIORITY = 20
REQUIRES = gpu.REQUIRES
TILE = 4 if gpu.INTERPRETED.value else 16
MAX_STATES = 256


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return gpu.runs(device, dtype)


def fits(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
) -> str:
    return f"more than {MAX_STATES} states" if A.shape[1] > MAX_STATES else ""


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    return _forward(u, delta, A, B, C, D, z)[0]


def _blocks(channels: int, n: int) -> tuple[int, int, int]:
    """(BLOCK_C, BLOCK_N, warps): at most 512 states in a program, two per thread."""
    states = triton.next_power_of_2(n)
    block = min(32, max(1, 512 // states), triton.next_power_of_2(channels))
    if gpu.INTERPRETED:
        block = min(block, 4)
    return block, states, min(8, max(2, block * states // 64))


@triton.jit
def _then(a, x, b, y):
    """s -> a s + x, and after that s -> b s + y."""
    return b * a, b * x + y


@triton.jit
def _at(rows, row, x):
    """Row `row` of a tile (TILE, BLOCK_C, BLOCK_N)."""
    return tl.sum(tl.where((rows == row)[:, None, None], x, 0.0), axis=0)


@triton.jit
def _load(pointer, b, t, c, T, width):
    """A tile (tokens, columns) of a (B, T, width) tensor in float32, zero outside."""
    inside = (t < T)[:, None] & (c < width)[None, :]
    return tl.load(pointer + (b * T + t)[:, None] * width + c[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, b, t, c, T, width, x):
    """The counterpart of `_load`."""
    inside = (t < T)[:, None] & (c < width)[None, :]
    tl.store(pointer + (b * T + t)[:, None] * width + c[None, :], x, mask=inside)


@triton.jit
def _states(delta, u, A2, B, carry):
    """(inputs x, states s) of a tile that starts from the state `carry`; A2 is A log2(e)."""
    x = (delta * u)[:, :, None] * B[:, None, :]
    decay, s = tl.associative_scan((tl.exp2(delta[:, :, None] * A2[None]), x), 0, _then)
    return x, s + decay * carry[None]


@triton.jit
def _scan(
    u_, delta_, A_, B_, C_, D_, z_, y_, starts_, T, width, n, tiles,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    k = tl.arange(0, BLOCK_N)
    rows = tl.arange(0, TILE)
    inside = (c < width)[:, None] & (k < n)[None, :]
    of_state = c[:, None] * n + k[None, :]
    A2 = tl.load(A_ + of_state, mask=inside, other=0.0).to(tl.float32) * 1.4426950408889634
    D = tl.zeros((BLOCK_C,), tl.float32)
    if HAS_D:
        D = tl.load(D_ + c, mask=c < width, other=0.0).to(tl.float32)
    carry = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for i in range(0, tiles):
        t = i * TILE + rows
        tl.store(starts_ + (b * tiles + i) * width * n + of_state, carry, mask=inside)
        u, delta = _load(u_, b, t, c, T, width), _load(delta_, b, t, c, T, width)
        _, s = _states(delta, u, A2, _load(B_, b, t, k, T, n), carry)
        y = tl.sum(s * _load(C_, b, t, k, T, n)[:, None, :], axis=2) + D[None, :] * u
        if HAS_Z:
            z = _load(z_, b, t, c, T, width)
            y = y * z * tl.sigmoid(z)
        _store(y_, b, t, c, T, width, y)
        carry = _at(rows, TILE - 1, s)


@triton.jit
def _scan_backward(
    u_, delta_, A_, B_, C_, D_, z_, starts_, gy_,
    g_u_, g_delta_, g_A_, g_B_, g_C_, g_D_, g_z_, T, width, n, tiles, batch,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(1).to(tl.int64)
    part = tl.program_id(0) * batch + b  # the gradients of B and C in parts, one for each block of channels
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    k = tl.arange(0, BLOCK_N)
    rows = tl.arange(0, TILE)
    inside = (c < width)[:, None] & (k < n)[None, :]
    of_state = c[:, None] * n + k[None, :]
    A = tl.load(A_ + of_state, mask=inside, other=0.0).to(tl.float32)
    A2 = A * 1.4426950408889634
    D, g_D = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    if HAS_D:
        D = tl.load(D_ + c, mask=c < width, other=0.0).to(tl.float32)
    g_A = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    carry = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)  # the gradient of the first state after the tile
    for j in range(0, tiles):
        i = tiles - 1 - j
        t = i * TILE + rows
        start = tl.load(starts_ + (b * tiles + i) * width * n + of_state, mask=inside, other=0.0)
        u, delta = _load(u_, b, t, c, T, width), _load(delta_, b, t, c, T, width)
        B, C = _load(B_, b, t, k, T, n), _load(C_, b, t, k, T, n)
        x, s = _states(delta, u, A2, B, start)
        gy = _load(gy_, b, t, c, T, width)
        if HAS_Z:
            z = _load(z_, b, t, c, T, width)
            gate = tl.sigmoid(z)
            y = tl.sum(s * C[:, None, :], axis=2) + D[None, :] * u
            _store(g_z_, b, t, c, T, width, gy * y * gate * (1 + z * (1 - gate)))
            gy = gy * z * gate
        next_decay = tl.exp2(_load(delta_, b, t + 1, c, T, width)[:, :, None] * A2[None])
        decay, g = tl.associative_scan((next_decay, gy[:, :, None] * C[:, None, :]), 0, _then, reverse=True)
        g = g + decay * carry[None]  # the gradient of s_t
        carry = _at(rows, 0, g)
        g_w = tl.sum(g * B[:, None, :], axis=2)
        r = g * (s - x)  # the gradient of delta_t A: s - x is the decayed state before
        _store(g_u_, b, t, c, T, width, g_w * delta + D[None, :] * gy)
        _store(g_delta_, b, t, c, T, width, g_w * u + tl.sum(r * A[None], axis=2))
        _store(g_B_, part, t, k, T, n, tl.sum(g * (delta * u)[:, :, None], axis=1))
        _store(g_C_, part, t, k, T, n, tl.sum(s * gy[:, :, None], axis=1))
        g_A += tl.sum(r * delta[:, :, None], axis=0)
        g_D += tl.sum(gy * u, axis=0)
    tl.store(g_A_ + b * width * n + of_state, g_A, mask=inside)
    if HAS_D:
        tl.store(g_D_ + b * width + c, g_D, mask=c < width)


@torch.library.custom_op("runner::selective_scan", mutates_args=())
def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(y, the state before each tile (B, tiles, C, n))."""
    u, delta, A, B, C = (x.contiguous() for x in (u, delta, A, B, C))
    D, z = (x if x is None else x.contiguous() for x in (D, z))
    y, starts = _forward_like(u, delta, A, B, C, D, z)
    (batch, T, width), n = u.shape, A.shape[1]
    block_c, block_n, warps = _blocks(width, n)
    if u.numel():
        _scan[triton.cdiv(width, block_c), batch](
            u, delta, A, B, C, D, z, y, starts, T, width, n, starts.shape[1],
            HAS_D=D is not None, HAS_Z=z is not None, TILE=TILE, BLOCK_C=block_c, BLOCK_N=block_n, num_warps=warps,
        )  # fmt: skip
    return y, starts


@_forward.register_fake
def _forward_like(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    tiles = (u.shape[1] + TILE - 1) // TILE
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    return y, u.new_empty(u.shape[0], tiles, *A.shape, dtype=torch.float32)


@torch.library.custom_op("runner::selective_scan_backward", mutates_args=())
def _backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    starts: Tensor,
    gy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of (u, delta, A, B, C, D, z), empty for a D or z that is not there."""
    u, delta, A, B, C, gy = (x.contiguous() for x in (u, delta, A, B, C, gy))
    D, z = (x if x is None else x.contiguous() for x in (D, z))
    (batch, T, width), n = u.shape, A.shape[1]
    block_c, block_n, warps = _blocks(width, n)
    parts = triton.cdiv(width, block_c)
    g_u, g_delta, g_A, g_B, g_C, g_D, g_z = _backward_like(u, delta, A, B, C, D, z, starts, gy)
    if not u.numel():
        return g_u, g_delta, g_A.zero_(), g_B, g_C, g_D.zero_(), g_z
    parts_A = A.new_empty(batch, *A.shape, dtype=torch.float32)
    parts_D = A.new_empty(batch, width, dtype=torch.float32)
    parts_B, parts_C = (x.new_empty(parts, *x.shape) for x in (B, C))  # in their dtype: float32 would be large
    _scan_backward[parts, batch](
        u, delta, A, B, C, D, z, starts, gy,
        g_u, g_delta, parts_A, parts_B, parts_C, parts_D, g_z, T, width, n, starts.shape[1], batch,
        HAS_D=D is not None, HAS_Z=z is not None, TILE=TILE, BLOCK_C=block_c, BLOCK_N=block_n, num_warps=warps,
    )  # fmt: skip
    torch.sum(parts_B, 0, out=g_B)
    torch.sum(parts_C, 0, out=g_C)
    g_A.copy_(parts_A.sum(0))
    if D is not None:
        g_D.copy_(parts_D.sum(0))
    return g_u, g_delta, g_A, g_B, g_C, g_D, g_z


@_backward.register_fake
def _backward_like(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    starts: Tensor,
    gy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    g_D, g_z = (u.new_empty(0) if x is None else x for x in (D, z))
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, delta, A, B, C, g_D, g_z))


def _save(ctx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx, gy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, starts = ctx.saved_tensors
    gradients = _backward(*inputs, starts, gy)
    return tuple(None if x is None else g for x, g in zip(inputs, gradients, strict=True))


_forward.register_autograd(_differentiate, setup_context=_save)
