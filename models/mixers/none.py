"""No mixing, for ablations: what does a model lose without its token mixer?"""

import torch
from torch import Tensor, nn


class NoMixing(nn.Module):
    """Zeros: (B, T, D) -> (B, T, D). A post-norm block then is x = LN(x), x = LN(x + ffn(x)), the row "none" of the
    paper's ablation (iTransformer, arXiv 2310.06625, table 3: w/o attention), in which a token meets only itself."""

    def __init__(self, dim: int):
        super().__init__()

    def forward(self, x_BTD: Tensor) -> Tensor:
        return torch.zeros_like(x_BTD)
