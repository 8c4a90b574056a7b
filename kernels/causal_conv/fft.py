"""The causal convolution by FFT; short kernels by torch's conv1d, and those of at most four taps as as many products.

The transforms are long enough that nothing wraps around, and of a length with small factors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "torch"
PRIORITY = 10
REQUIRES = "a floating-point dtype"
PRODUCTS, DIRECT = 4, 16  # the most taps that are multiplied one by one, and that conv1d takes


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def causal_conv(u: Tensor, kernel: Tensor) -> Tensor:
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, taps = u.to(dtype), kernel.to(dtype)
    if taps.shape[1] > u.shape[1]:
        taps = taps[:, : max(1, u.shape[1])]
    if taps.shape[1] <= PRODUCTS and len(taps) == u.shape[2]:
        y = _Products.apply(x, taps)
    elif taps.shape[1] <= DIRECT:
        with torch.autocast(u.device.type, enabled=False):
            y = F.conv1d(F.pad(x.mT, (taps.shape[1] - 1, 0)), taps.flip(1)[:, None], groups=u.shape[2]).mT
    else:
        y = _by_fft(x, taps)
    return y.to(u.dtype)


def _by_fft(u: Tensor, kernel: Tensor) -> Tensor:
    T, G = u.shape[1:]
    length = _good_length(T + kernel.shape[1] - 1)
    spectrum = torch.fft.rfft(kernel, length).unflatten(0, (G, -1))  # (G, C / G, frequencies)
    y = torch.fft.irfft(torch.fft.rfft(u.mT, length)[:, :, None] * spectrum, length)
    return y[..., :T].flatten(1, 2).mT


def _good_length(least: int) -> int:
    """The smallest even number from `least` on without a prime factor above 7."""
    length = least + least % 2
    while not _smooth(length):
        length += 2
    return length


def _smooth(number: int) -> bool:
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
    return number == 1


class _Products(torch.autograd.Function):
    """(u, kernel) -> y, depthwise, for few taps: sums of shifted products, the cheapest where memory is the limit."""

    @staticmethod
    def forward(ctx, u, kernel):
        ctx.save_for_backward(u, kernel)
        y = u * kernel[:, 0]
        for j in range(1, kernel.shape[1]):
            y[:, j:].addcmul_(u[:, :-j], kernel[:, j])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gy):
        u, kernel = ctx.saved_tensors
        g_u, g_kernel = gy * kernel[:, 0], [(gy * u).sum((0, 1))]
        for j in range(1, kernel.shape[1]):
            g_u[:, :-j].addcmul_(gy[:, j:], kernel[:, j])
            g_kernel.append((gy[:, j:] * u[:, :-j]).sum((0, 1)))
        return g_u, torch.stack(g_kernel, dim=1)
