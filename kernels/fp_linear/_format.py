"""Float formats of few bits with real-valued exponent biases (LLM-FP4, Liu et al. 2023, arXiv 2310.16836, sec. 3).

A code is, from the highest bit, a sign, e `exponent` bits E and m `mantissa` bits M. With the bias b it means

    E > 0: +-2^(E - b) (1 + M / 2^m)        E = 0: +-2^(1 - b) M / 2^m

No code is kept for infinity or NaN: the largest E is an ordinary one. b is a real number, minus the logarithm of a
scale: the values for b are 2^-b times those for 0. What computes with them holds them in units of their highest binade,
2^(2^e - 1 - b): that is near the data's largest value, so that 7 exponent bits overflow no float32 either.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FloatFormat:
    """The format E<exponent>M<mantissa> with one sign bit, 2 to 8 bits in all."""

    exponent: int
    mantissa: int

    def __post_init__(self) -> None:
        if self.exponent < 1:
            raise ValueError(f"{self} is not a float format; exponent bits must be >= 1")
        if self.mantissa < 0 or self.bits > 8:
            raise ValueError(f"{self} is not a float format of 2 to 8 bits: 1 + exponent + mantissa is {self.bits}")

    def __str__(self) -> str:
        return f"E{self.exponent}M{self.mantissa}"

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 1 + self.exponent + self.mantissa

    @property
    def top(self) -> int:
        """The largest E."""
        return 2**self.exponent - 1

    @property
    def values(self) -> list[float]:
        """The value of every code in order, for the bias 0: those of positive sign, then those of negative sign."""
        positive = []
        for code in range(2 ** (self.bits - 1)):
            E, M = divmod(code, 2**self.mantissa)
            positive.append(2.0 ** max(E, 1) * ((E > 0) + M / 2**self.mantissa))
        return positive + [-value for value in positive]

    @property
    def levels(self) -> list[float]:
        """`values` in units of the highest binade: all between -2 and 2."""
        return [value * 2.0**-self.top for value in self.values]

    @property
    def limit(self) -> float:
        """The largest value, in units of the highest binade."""
        return 2 - 2.0**-self.mantissa

    def largest(self, bias: Tensor) -> Tensor:
        """The largest value, Qmax = (2 - 2^-m) 2^(2^e - 1 - b)."""
        return self.limit * self.unit(bias)

    def bias(self, largest: Tensor) -> Tensor:
        """The bias with which `largest` (at least 1e-6) is the largest value (eq. 7)."""
        limit = torch.tensor(self.limit, dtype=largest.dtype, device=largest.device)
        return self.top + limit.log2() - largest.clamp(min=1e-6).log2()

    def unit(self, bias: Tensor) -> Tensor:
        """The highest binade, 2^(2^e - 1 - b)."""
        return torch.exp2(self.top - bias)


def quantize(x: Tensor, format: FloatFormat, bias: Tensor) -> Tensor:
    """The nearest value of `format` with exponent bias `bias` (broadcastable to x), ties to even; x's shape and dtype.

    What is larger than the largest value becomes that. The rounding is taken for the identity by gradients: x gets
    the gradient of its value, or zero where it was too large; with y of x, `bias` gets ln 2 (x - y) of it, or
    -(ln 2) y where x was too large. Computed in float32 at least.
    """
    unit, scaled = _scaled(x, format, bias)
    rounded = scaled + (_round(scaled.detach(), format) - scaled.detach())
    return (rounded * unit).to(x.dtype)


def encode(x: Tensor, format: FloatFormat, bias: Tensor) -> Tensor:
    """The codes (uint8, of x's shape) of `quantize(x, format, bias)`."""
    scaled = _scaled(x.detach(), format, bias.detach())[1]
    steps = (scaled / _step(scaled, format)).round().abs()
    binade = _binade(scaled, format) + format.top - 1  # the first one and that of the subnormal values are one: 0
    codes = (binade << format.mantissa) + steps.to(torch.int32)
    return (codes + (scaled.signbit().to(torch.int32) << (format.bits - 1))).to(torch.uint8)


def decode(codes: Tensor, format: FloatFormat, bias: Tensor) -> Tensor:
    """The values of codes (uint8) for an exponent bias that broadcasts to them, in its dtype, float32 at least."""
    bias = bias.to(torch.promote_types(bias.dtype, torch.float32))
    levels = torch.tensor(format.levels, dtype=bias.dtype, device=codes.device)
    return levels[codes.int()] * format.unit(bias)


def pack4(codes: Tensor) -> Tensor:
    """Codes of 4 bits (..., n), two to a byte (..., ceil(n / 2)): the first in the low half, and 0 after an odd one."""
    if codes.shape[-1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[..., ::2] | (codes[..., 1::2] << 4)


def unpack4(packed: Tensor, n: int) -> Tensor:
    """The n codes of each row that `pack4` packed."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)[..., :n]


def _scaled(x: Tensor, format: FloatFormat, bias: Tensor) -> tuple[Tensor, Tensor]:
    """(unit, x in that unit, clipped)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    unit = format.unit(bias.to(dtype))
    return unit, (x.to(dtype) / unit).clamp(-format.limit, format.limit)


def _binade(scaled: Tensor, format: FloatFormat) -> Tensor:
    """floor(log2(|scaled|)), that of the smallest normal value at least."""
    return torch.frexp(scaled.abs().clamp(min=2.0 ** (1 - format.top))).exponent - 1


def _step(scaled: Tensor, format: FloatFormat) -> Tensor:
    """The distance of neighbouring values around `scaled`."""
    return torch.exp2((_binade(scaled, format) - format.mantissa).to(scaled.dtype))


def _round(scaled: Tensor, format: FloatFormat) -> Tensor:
    step = _step(scaled, format)
    return (scaled / step).round() * step
