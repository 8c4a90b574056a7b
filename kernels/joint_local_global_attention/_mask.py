"""What a padding mask amounts to, for the backends that know none."""

from torch import Tensor


def masked_keys(k_local: Tensor, k_global: Tensor, mask: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Keys (B, S, d) with which a call without `mask` gives what one with it would.

    A zero key has weight relu(0)^2 = 0. The global term is divided by all S tokens: k_global makes up for it.
    """
    dropped = ~mask[..., None]
    k_local, k_global = k_local.masked_fill(dropped, 0.0), k_global.masked_fill(dropped, 0.0)
    if not causal:
        k_global = k_global * (mask.shape[1] / mask.sum(1).clamp(min=1).double()).to(k_global.dtype)[:, None, None]
    return k_local, k_global
