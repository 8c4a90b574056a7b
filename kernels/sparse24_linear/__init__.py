"""A linear layer with 2:4 sparse weights in packed storage (GPUSQ-ViT, Yu et al. 2023, arXiv 2305.10727)."""

import torch
from torch import Tensor

from kernels.registry import call
from kernels.sparse24_linear._pack import Packed24, mask24, pack24, unpack24

__all__ = ["Packed24", "mask24", "pack24", "sparse24_linear", "unpack24"]


def sparse24_linear(
    x: Tensor,
    values: Tensor,
    indices: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
) -> Tensor:
    """y = Q(x) W^T + bias with W = unpack24(values, indices, scale), see `pack24`, and

        Q(x) = x_scale * clip(round(x / x_scale), -127, 127), or x where x_scale is None

    x: (..., K), float, K divisible by 4. values: (N, K / 2), of x's dtype, or int8 with `scale` (N,).
    indices: (N, ceil(K / 8)), uint8. bias: (N,). x_scale: (), for int8 values only -> (..., N) in x's dtype.

    Gradients: of x, straight through the rounding and zero where it was clipped; of values that are not int8; of scale;
    of bias. Zeros of W stay zeros. x_scale is a constant.
    """
    K, N = x.shape[-1], values.shape[0]
    if K % 4:
        raise ValueError(
            f"sparse24_linear: x {tuple(x.shape)}: a weight of {K} inputs has no 2:4 pattern: the number of inputs must"
            " be divisible by 4"
        )
    if values.shape != (N, K // 2) or indices.shape != (N, -(-K // 8)):
        raise ValueError(
            f"sparse24_linear: values {tuple(values.shape)} and indices {tuple(indices.shape)} do not fit"
            f" x {tuple(x.shape)}: expected ({N}, {K // 2}) and ({N}, {-(-K // 8)})"
        )
    int8 = values.dtype == torch.int8
    if int8 != (scale is not None) or not (int8 or values.dtype == x.dtype):
        raise ValueError(
            f"sparse24_linear: values of {values.dtype} {'without' if scale is None else 'with'} scale for x of"
            f" {x.dtype}: expected values of {x.dtype} without, or of torch.int8 with a scale"
        )
    if x_scale is not None and (not int8 or x_scale.shape != ()):
        raise ValueError(
            f"sparse24_linear: x_scale {tuple(x_scale.shape)} with values of {values.dtype}: expected a scalar, and"
            " values of torch.int8"
        )
    for name, given in (("scale", scale), ("bias", bias)):
        if given is not None and given.shape != (N,):
            raise ValueError(f"sparse24_linear: {name} {tuple(given.shape)} does not fit {N} outputs: expected ({N},)")
    return call("sparse24_linear", x, values, indices, scale, bias, x_scale=x_scale)
