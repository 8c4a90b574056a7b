"""Shapes of the joint attention: MossFormer's laptop preset and its large model on 8 to 128 seconds of 8 kHz sound."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, S: int, d: int, e: int, P: int, grad: bool = True) -> Case:
    """Two streams of e values each; the operations of q k^T, A x, k'^T x and q' (k'^T x)."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        def draw(seed: int, width: int) -> torch.Tensor:
            return normal(B, S, width, device=device, dtype=dtype, seed=seed, grad=grad)

        return (*(draw(s, d) for s in range(4)), draw(4, e), draw(5, e)), {"group": P}

    flops, numbers = 2.0 * B * S * (P * (d + 2 * e) + 4 * d * e), 4.0 * B * S * (d + e)
    return Case(f"{label}: B {B}, S {S}, d {d}, e 2 x {e}, P {P}", make, flops, 2 * numbers)


def softmax(q, k, qg, kg, v, u, *, group: int) -> torch.Tensor:
    """Dense softmax attention of one head to all tokens, with values as wide."""
    q, k, x = (x[:, None] for x in (q, k, torch.cat([v, u], dim=-1)))
    return F.scaled_dot_product_attention(q, k, x)


def quadratic(q, k, qg, kg, v, u, *, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The S x S form: both kinds of weights in one matrix."""
    S = q.shape[1]
    chunk = torch.arange(S, device=q.device) // group
    weights = F.relu(q @ k.mT / group).square() * (chunk[:, None] == chunk) + qg @ kg.mT / S
    return weights @ v, weights @ u


CHECK = case("check", 2, 21, 4, 5, 6)
CPU = [
    case("laptop preset", 8, 399, 32, 64, 64),
    case("4 seconds", 1, 1600, 32, 64, 64),
    case("published chunks, 2 seconds", 1, 2000, 128, 256, 256),
]
GPU = [case(f"large model, {S // 1024}k frames", 1, S, 128, 1024, 256) for S in (8192, 32768, 131072)]
BASELINES = {"S x S": quadratic, "softmax SDPA": softmax}
