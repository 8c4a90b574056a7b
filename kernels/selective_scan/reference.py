"""The selective scan token by token: the definition of correct. It also refuses A >= 0, with which the state grows."""

import torch
import torch.nn.functional as F
from torch import Tensor

PRIORITY = 0
REQUIRES = "nothing"


def supports(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None
) -> Tensor:
    if bool((A >= 0).any()):
        raise ValueError(f"selective_scan: A reaches {A.max().item():.3g}, it must be negative: pass A = -exp(A_log)")
    dtype = torch.promote_types(u.dtype, torch.float32)
    u_, delta, A, B, C = (x.to(dtype) for x in (u, delta, A, B, C))
    state = u_.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * u_[:, t])[..., None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    y = torch.stack(outputs, dim=1)
    if D is not None:
        y = y + D.to(dtype) * u_
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype)
