"""Normalisation of each window by its own mean and deviation over time (Liu et al. 2022, arXiv 2205.14415;
iTransformer, arXiv 2310.06625, sec. 3.2). No parameters. Shapes: B batch, L look-back, H horizon, N variates."""

from torch import Tensor


def normalise(x_BLN: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """((x - mean) / std, mean, std) with mean and std of (B, 1, N) over time.

    The mean carries no gradient; std = sqrt(population variance + eps), so a constant window gives zeros.
    """
    mean = x_BLN.mean(dim=1, keepdim=True).detach()
    x_BLN = x_BLN - mean
    std = (x_BLN.var(dim=1, keepdim=True, correction=0) + eps).sqrt()
    return x_BLN / std, mean, std


def denormalise(y_BHN: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Undoes `normalise` on a forecast: y * std + mean."""
    return y_BHN * std + mean
