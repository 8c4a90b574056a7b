"""The Triton kernels of the causal convolution; triton.py says how they make it up."""

import triton
import triton.language as tl

from kernels import gpu


@triton.jit
def rows(
    u_, kernel_, out_, T, C, L, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A tile (BLOCK_T, BLOCK_C) of one sequence, tap by tap: few taps, all of them in the cache."""
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = tl.program_id(2).to(tl.int64) * T * C
    acc = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for j in range(0, L):
        s = t + j if REVERSE else t - j
        inside = ((s >= 0) & (s < T))[:, None] & (c < C)[None, :]
        u = tl.load(u_ + first + s.to(tl.int64)[:, None] * C + c[None, :], mask=inside, other=0.0)
        tap = tl.load(kernel_ + c * L + j, mask=c < C, other=0.0)
        acc += u.to(tl.float32) * tap.to(tl.float32)[None, :]
    inside = (t < T)[:, None] & (c < C)[None, :]
    tl.store(out_ + first + t.to(tl.int64)[:, None] * C + c[None, :], acc, mask=inside)


@triton.jit
def rows_kernel_gradient(
    u_, gy_, parts_, T, C, L, spans, SPAN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """sum_t gy_t u_(t - j) over SPAN tokens of one sequence, for one tap j."""
    part, j = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = part // spans * T * C
    acc = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, SPAN, BLOCK_T):
        t = part % spans * SPAN + start + tl.arange(0, BLOCK_T)
        inside = ((t >= j) & (t < T))[:, None] & (c < C)[None, :]
        place = first + t[:, None] * C + c[None, :]
        gy = tl.load(gy_ + place, mask=inside, other=0.0).to(tl.float32)
        acc += tl.sum(gy * tl.load(u_ + place - j * C, mask=inside, other=0.0).to(tl.float32), axis=0)
    tl.store(parts_ + (part * C + c) * L + j, acc, mask=c < C)


@triton.jit
def toeplitz(
    u_, kernel_, out_, B, T, L, share, blocks,
    REVERSE: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """WIDTH columns of one channel: column i B + b is block i of sequence b."""
    channel = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    i, b = column // B, (column % B).to(tl.int64)
    t = tl.arange(0, TILE)
    u_ += channel // (1 if REVERSE else share) * B * T  # the gradient of y has a channel for every kernel
    steps = tl.minimum((L + TILE - 2) // TILE + 1, blocks)  # beyond, there is no tap
    if REVERSE:
        steps = tl.minimum(steps, blocks - tl.program_id(1) * WIDTH // B)
    else:
        steps = tl.minimum(steps, (tl.program_id(1) * WIDTH + WIDTH - 1) // B + 1)
    acc = tl.zeros((TILE, WIDTH), tl.float32)
    for k in range(0, steps):
        lag = k * TILE + (t[None, :] - t[:, None] if REVERSE else t[:, None] - t[None, :])
        taps = tl.load(kernel_ + channel * L + lag, mask=(lag >= 0) & (lag < L), other=0.0)
        s = (i + k if REVERSE else i - k)[None, :] * TILE + t[:, None]
        inside = (s >= 0) & (s < T) & (i < blocks)[None, :]
        acc = gpu.dot(taps, tl.load(u_ + b[None, :] * T + s, mask=inside, other=0.0), acc)
    s = i[None, :] * TILE + t[:, None]
    tl.store(out_ + channel * B * T + b[None, :] * T + s, acc, mask=s < T)


@triton.jit
def toeplitz_kernel_gradient(
    u_, gy_, parts_, B, T, L, share, blocks, splits, TILE: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """Taps k TILE + d, (d, k), of one channel: sum over blocks i of u_(i TILE + t - d) gy_((i + k) TILE + t)."""
    channel, split = tl.program_id(0).to(tl.int64), tl.program_id(2)
    k = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, TILE)
    acc = tl.zeros((TILE, WIDTH), tl.float32)
    for b in range(split, B, splits):
        u_of_b = u_ + (channel // share * B + b) * T
        gy_of_b = gy_ + (channel * B + b) * T
        for i in range(0, blocks - tl.program_id(1) * WIDTH):
            s = i * TILE + t[None, :] - t[:, None]
            shifted = tl.load(u_of_b + s, mask=(s >= 0) & (s < T), other=0.0)
            s = (i + k)[None, :] * TILE + t[:, None]
            acc = gpu.dot(shifted, tl.load(gy_of_b + s, mask=s < T, other=0.0), acc)
    lag = k[None, :] * TILE + t[:, None]
    tl.store(parts_ + (split * tl.num_programs(0) + channel) * L + lag, acc, mask=lag < L)
