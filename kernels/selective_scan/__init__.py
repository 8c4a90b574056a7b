"""The selective scan of Mamba (Gu & Dao 2023, arXiv 2312.00752, alg. 2)."""

from torch import Tensor

from kernels.registry import call


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    """Runs a linear recurrence along the tokens whose step size, input and output maps depend on the token:

        s_t = exp(delta_t A) * s_(t-1) + (delta_t u_t) B_t,   s_0 = 0,   s of shape (B, C, n)
        y_t = sum_n C_t s_t + D u_t, times silu(z_t) where z is given

    u, delta, z: (B, T, C), delta > 0; A: (C, n), all negative; B, C: (B, T, n); D: (C,) -> (B, T, C) in u's dtype.
    The state is float32 at least, under autocast too. Not differentiable twice.
    """
    if (
        delta.shape != u.shape
        or B.shape != C.shape
        or A.shape != (u.shape[-1], B.shape[-1])
        or B.shape[:2] != u.shape[:2]
    ):
        raise ValueError(
            f"selective_scan: u {tuple(u.shape)}, delta {tuple(delta.shape)}, A {tuple(A.shape)}, B {tuple(B.shape)},"
            f" C {tuple(C.shape)} do not fit: expected (B, T, C), (B, T, C), (C, n), (B, T, n), (B, T, n)"
        )
    return call("selective_scan", u, delta, A, B, C, D, z)
