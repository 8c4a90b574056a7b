"""MossFormer's joint attention: squared-ReLU weights within chunks, linear attention over the whole sequence.

Zhao & Ma 2023 (arXiv 2302.11824, section 2.3), after FLASH (Hua et al. 2022, arXiv 2202.10447). Both parts act on two
value streams and share their weights between them.
"""

import torch
from torch import Tensor

from kernels.registry import call


def joint_local_global_attention(
    q_local: Tensor,
    k_local: Tensor,
    q_global: Tensor,
    k_global: Tensor,
    v: Tensor,
    u: Tensor,
    *,
    group: int,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attends within chunks of P = `group` tokens and, linearly, to all S tokens; for x = v and x = u:

        y_i = sum_(j in the chunk of i) relu(q_i . k_j / P)^2 x_j + q'_i sum_(j = 1..S) k'_j^T x_j / S

    q_local, k_local, q_global, k_global: (B, S, d), the q, k, q', k' of the equation, positions already rotated in;
    v: (B, S, e1), u: (B, S, e2) -> (att_v (B, S, e1), att_u (B, S, e2)), all of one dtype, that of autocast where it is
    on. S need not be a multiple of P: the last chunk is shorter, and the weights are divided by P all the same.
    mask: (B, S), True where a token is one. The others are attended to by nobody and do not count in S, so that a
    sequence gets the same alone and padded. What they themselves get means nothing.
    causal: token i sees the tokens j <= i of its chunk and, linearly, the chunks before its own; that sum is then
    divided by P instead of S.
    dropout: probability that a weight within a chunk is set to zero (0 outside training).

    Squares of small weights vanish in float16 (below 6e-8; at MossFormer's initial scale nearly all): take bfloat16.
    Not differentiable twice.
    """
    _check(q_local, k_local, q_global, k_global, v, u, group=group, mask=mask, dropout=dropout)
    tensors = (q_local, k_local, q_global, k_global, v, u)
    if torch.is_autocast_enabled(q_local.device.type):
        dtype = torch.get_autocast_dtype(q_local.device.type)
        tensors = tuple(x.to(dtype) for x in tensors)
    if any(x.dtype != tensors[0].dtype for x in tensors):
        raise ValueError(
            f"joint_local_global_attention: dtypes {', '.join(str(x.dtype) for x in tensors)} must be the same"
        )
    return call("joint_local_global_attention", *tensors, group=group, mask=mask, causal=causal, dropout=dropout)


def _check(q: Tensor, *others: Tensor, group: int, mask: Tensor | None, dropout: float) -> None:
    """Raises a ValueError that names what does not fit."""
    op, names = "joint_local_global_attention", ("q_local", "k_local", "q_global", "k_global", "v", "u")
    tokens_fit = q.dim() == 3 and all(x.dim() == 3 and x.shape[:2] == q.shape[:2] for x in others)
    if not tokens_fit or any(x.shape != q.shape for x in others[:3]):
        given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(names, (q, *others), strict=True))
        raise ValueError(f"{op}: {given} do not fit: expected four times (B, S, d), then (B, S, e1) and (B, S, e2)")
    if group < 1:
        raise ValueError(f"{op}: group={group} must be at least 1, the number of tokens of a chunk")
    if not 0 <= dropout < 1:
        raise ValueError(f"{op}: dropout={dropout} must be at least 0 and less than 1")
    if mask is not None and (mask.shape != q.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"{op}: mask {tuple(mask.shape)} of {mask.dtype} must be {tuple(q.shape[:2])} of torch.bool")
