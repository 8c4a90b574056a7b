"""Mamba: a selective state space block (Gu & Dao 2023, arXiv 2312.00752, fig. 3 and alg. 2), in one direction or both.

Notable:
- step size, input and output map of the recurrence depend on the token, so it can select what to keep
- linear in the number of tokens; the order of the tokens matters
- both directions are two blocks with separate weights (S-Mamba, arXiv 2403.11144, eq. 5): what comes first in one
  comes last in the other

Shapes: B batch, T tokens, D width, n states per channel, r rank of the step size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import selective_scan
from models import checks


class Mamba(nn.Module):
    """One direction, expansion 1: (B, T, D) -> (B, T, D).

    [u, z] = W_in x; u = silu(causal depthwise conv(u)); [d, B, C] = W_x u; delta = softplus(W_dt d + b_dt);
    out = W_out selective_scan(u, delta, -exp(A_log), B, C, D_skip, z).

    d_state: n. d_conv: taps of the convolution (a token and the d_conv - 1 before it). No dropout.
    Parameters: 2 D^2 + (d_conv + 1) D + D (r + 2 n) + r D + D + D n + D + D^2 with r = ceil(D / 16).
    """

    def __init__(self, dim: int, d_state: int = 32, d_conv: int = 2):
        super().__init__()
        for name, value in {"d_model": dim, "d_state": d_state, "d_conv": d_conv}.items():
            checks.whole(name, value)
        self.d_state, self.rank = d_state, math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.conv = nn.Conv1d(dim, dim, d_conv, groups=dim)  # keeps weight and bias; applied in `_causal_conv`
        self.x_proj = nn.Linear(dim, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, dim)
        self.A_log = nn.Parameter(torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(dim, 1))
        self.D = nn.Parameter(torch.ones(dim))
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self._init_steps()

    def _init_steps(self, low: float = 1e-3, high: float = 0.1, floor: float = 1e-4) -> None:
        """Step sizes start log-uniform in [low, high]: b_dt is their inverse softplus."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        share = torch.rand(self.dt_proj.out_features)
        dt = torch.exp(math.log(low) + share * math.log(high / low)).clamp(min=floor)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x_BTD: Tensor) -> Tensor:
        u, z = self.in_proj(x_BTD).chunk(2, dim=-1)
        u = F.silu(self._causal_conv(u))
        d, B, C = self.x_proj(u).split((self.rank, self.d_state, self.d_state), dim=-1)
        delta = F.softplus(self.dt_proj(d).float())
        return self.out_proj(selective_scan(u, delta, -torch.exp(self.A_log), B, C, self.D, z))

    def _causal_conv(self, u_BTD: Tensor) -> Tensor:
        """sum_k w_k u_(t - d_conv + 1 + k) + b per channel, as shifted products: few taps, and tokens stay in place."""
        T = u_BTD.shape[1]
        taps = self.conv.weight.squeeze(1).unbind(1)
        padded = F.pad(u_BTD, (0, 0, len(taps) - 1, 0))
        out = torch.addcmul(self.conv.bias, u_BTD, taps[-1])
        for k, tap in enumerate(taps[:-1]):
            out = torch.addcmul(out, padded[:, k : k + T], tap)
        return out


class BiMamba(nn.Module):
    """forward(x) + flip(backward(flip(x))), flipped along the tokens, with separate weights: (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, d_state: int = 32, d_conv: int = 2):
        super().__init__()
        self.forwards = Mamba(dim, d_state, d_conv)
        self.backwards = Mamba(dim, d_state, d_conv)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.forwards(x_BTD) + self.backwards(x_BTD.flip(1)).flip(1)
