"""Which subsequences recur in other series: the matrix profile (Yeh et al. 2016, ICDM; by brute force, from memory)."""

from torch import Tensor

from kernels.registry import call


def matrix_profile(windows: Tensor, groups: Tensor, *, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """The distance of every window to its nearest neighbour among the windows of other groups, and which that is:

        z_i = (w_i - mean(w_i)) / (std(w_i) + eps),   p_i = min over j with g_j != g_i of ||z_i - z_j||

    windows: (B, n, l), B independent sets of n windows of l steps; groups: (n,) integers, the series that each window
    stems from, the same in all sets -> p (B, n) in float32 (float64 for float64), and j (B, n) in int64. Without any
    other group p is infinite and j is -1.
    std is the population's. A flat window becomes zeros: at the distance sqrt(l) of all that are not flat.
    A search and so not differentiable: gradients stop here. No n x n tensor is made (except by `reference`).
    """
    if windows.dim() != 3 or groups.shape != windows.shape[1:2]:
        raise ValueError(
            f"matrix_profile: windows {tuple(windows.shape)} and groups {tuple(groups.shape)} do not fit:"
            " expected (B, n, l) and (n,)"
        )
    if groups.is_floating_point():
        raise ValueError(f"matrix_profile: groups is {groups.dtype}, it must hold integers, one for each window")
    if not eps > 0:
        raise ValueError(f"matrix_profile: eps={eps} must be positive, or a flat window is divided by zero")
    return call("matrix_profile", windows.detach(), groups, eps=eps)
