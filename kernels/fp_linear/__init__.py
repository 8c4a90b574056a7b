"""A linear layer with weights, and inputs if wanted, in floats of few bits (LLM-FP4, Liu et al., arXiv 2310.16836)."""

from torch import Tensor

from kernels.fp_linear._format import FloatFormat, decode, encode, pack4, quantize, unpack4
from kernels.registry import call

__all__ = ["FloatFormat", "decode", "encode", "fp_linear", "pack4", "quantize", "unpack4"]


def fp_linear(
    x: Tensor,
    codes: Tensor,
    format: FloatFormat,
    exponent_bias: Tensor,
    bias: Tensor | None = None,
    *,
    input_format: FloatFormat | None = None,
    input_exponent_bias: Tensor | None = None,
    input_shift: Tensor | None = None,
) -> Tensor:
    """y = Q(x) W^T + bias (eqs. 12-19), with

        W = decode(codes, format, exponent_bias), a row of which is an output
        Q(x) = quantize(x, input_format, input_exponent_bias + input_shift), or x where input_format is None

    x: (..., K), float. codes: uint8, one a byte (N, K), those of 4 bits packed by `pack4`, (N, ceil(K / 2)).
    exponent_bias: (N,), or () for the whole weight; bias: (N,) -> (..., N) in x's dtype.
    input_exponent_bias: (), needed with input_format. input_shift: (K,), integers, the pre-shifted exponent biases
    of the channels: they differ from a layer with one scale for all inputs by powers of two.

    Gradients: of x straight through the rounding, zero where it was too large, and of input_exponent_bias, see
    `quantize`; of exponent_bias; of bias. The codes have none.
    """
    K, N = x.shape[-1], codes.shape[0]
    columns = -(-K // 2) if format.bits == 4 else K
    if codes.dim() != 2 or codes.shape[1] != columns:
        raise ValueError(
            f"fp_linear: codes {tuple(codes.shape)} of {format} do not fit x {tuple(x.shape)}:"
            f" expected ({N}, {columns}){', two codes a byte' if format.bits == 4 else ''}"
        )
    if exponent_bias.shape not in ((), (N,)) or (bias is not None and bias.shape != (N,)):
        given = None if bias is None else tuple(bias.shape)
        raise ValueError(
            f"fp_linear: exponent_bias {tuple(exponent_bias.shape)} and bias {given} do not fit {N} outputs:"
            f" expected ({N},) or (), and ({N},) or None"
        )
    if (input_format is None) != (input_exponent_bias is None):
        raise ValueError("fp_linear: input_format and input_exponent_bias go together: give both or neither")
    if input_exponent_bias is not None and input_exponent_bias.shape != ():
        raise ValueError(
            f"fp_linear: input_exponent_bias {tuple(input_exponent_bias.shape)} must be a scalar; what is of channels"
            " goes into input_shift"
        )
    if input_shift is not None and (input_format is None or input_shift.shape != (K,)):
        raise ValueError(
            f"fp_linear: input_shift {tuple(input_shift.shape)} with input_format {input_format}:"
            f" expected ({K},) and a format"
        )
    return call(
        "fp_linear",
        x,
        codes,
        format,
        exponent_bias,
        bias,
        input_format=input_format,
        input_exponent_bias=input_exponent_bias,
        input_shift=input_shift,
    )
