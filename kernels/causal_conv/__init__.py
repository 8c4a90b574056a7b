"""Causal convolution: the short one of Mamba and MossFormer, and LMU's memory (Voelker et al. 2019)."""

from torch import Tensor

from kernels.registry import call


def causal_conv(u: Tensor, kernel: Tensor) -> Tensor:
    """Convolves along the tokens with a kernel per output channel; tokens before the first are zero:

        y[b, t, c] = sum_j kernel[c, j] u[b, t - j, c // (C / G)],   j = 0 .. min(t, L - 1)

    u: (B, T, G), kernel: (C, L), C a multiple of G -> (B, T, C) in u's dtype. L may exceed T.
    Depthwise: C = G. A linear state space m_t = Abar m_(t-1) + Bbar u_t with one input, as in LMU (arXiv 2402.04882),
    has G = 1 and the kernel columns Abar^j Bbar: (M, T).
    kernel[:, 0] weighs the token itself, which `F.conv1d` keeps last. For "same" padding pad u at its end by half a
    kernel and drop as many tokens of y at its start. Sums are float32 at least, under autocast too.
    """
    if u.ndim != 3 or kernel.ndim != 2 or kernel.shape[1] < 1 or kernel.shape[0] % max(1, u.shape[-1]):
        raise ValueError(
            f"causal_conv: u {tuple(u.shape)}, kernel {tuple(kernel.shape)} do not fit:"
            " expected (B, T, G), (C, L) with C a multiple of G and L at least 1"
        )
    return call("causal_conv", u, kernel)
