"""Attention in cross-shaped windows: CSWin (Dong et al. 2021, arXiv 2107.00652, equations 1 to 7)."""

import math

from torch import Tensor

from kernels.registry import call
from kernels.stripe_attention._stripes import branches


def stripe_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    size: tuple[int, int],
    stripe: int,
    lepe_weight: Tensor | None = None,
    lepe_bias: Tensor | None = None,
    pad: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Self-attention within stripes of an image: vertical ones for the first half of the heads, then horizontal ones:

        y = softmax(scale * q k^T) v + LePE(v)    within every stripe

    q, k, v: (B, h, H * W, d) of one dtype, the pixels of `size` = (H, W) row by row -> the same shape.
    Vertical stripes have all H rows and `stripe` columns, horizontal ones `stripe` rows and all W columns. Where
    `stripe` reaches H and W, either is the whole map: then all heads do the same, and their number may be odd.
    lepe_weight: (h * d, 1, 3, 3), a depthwise convolution over v, each stripe an image of its own with zeros around it
    (locally-enhanced positional encoding); channel c belongs to head c // d. lepe_bias: (h * d,).
    pad: pads a map that `stripe` does not divide by zeros, on both sides alike (one more at the end); these take part
    as keys of score 0 and value 0, as in the paper's code for dense tasks. Without it such a map is an error.
    scale: d ** -0.5 where None. The result lies in memory as (B, H * W, h, d), so that merging heads copies nothing.
    """
    h, d = q.shape[1], q.shape[3]
    if k.shape != q.shape or v.shape != q.shape or q.shape[2] != math.prod(size):
        raise ValueError(
            f"stripe_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit a map of"
            f" {size[0]}x{size[1]}: expected (B, h, {math.prod(size)}, d) three times"
        )
    if lepe_weight is None and lepe_bias is not None:
        raise ValueError("stripe_attention: lepe_bias is given without lepe_weight")
    if lepe_weight is not None and lepe_weight.shape != (h * d, 1, 3, 3):
        raise ValueError(
            f"stripe_attention: lepe_weight {tuple(lepe_weight.shape)} does not fit {h} heads of {d}:"
            f" expected ({h * d}, 1, 3, 3)"
        )
    if lepe_bias is not None and lepe_bias.shape != (h * d,):
        raise ValueError(f"stripe_attention: lepe_bias {tuple(lepe_bias.shape)}, expected ({h * d},)")
    branches(h, size, stripe, pad)  # says what does not fit
    return call(
        "stripe_attention",
        q,
        k,
        v,
        size=size,
        stripe=stripe,
        lepe_weight=lepe_weight,
        lepe_bias=lepe_bias,
        pad=pad,
        scale=scale,
    )
