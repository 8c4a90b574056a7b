"""Shapes of 2:4 sparse linear layers: a laptop ViT's and ViT-L's MLP, 16 bits and INT8."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal
from kernels.sparse24_linear import pack24, unpack24


def case(label: str, M: int, K: int, N: int, int8: bool = False) -> Case:
    """A weight pruned to 2:4 by magnitude; half of the operations are left."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        weight = K**-0.5 * normal(N, K, device=device, dtype=dtype, seed=1, grad=False)
        values, indices, scale = pack24(weight, int8=int8)
        return (normal(M, K, device=device, dtype=dtype), values, indices, scale), {}

    stored = 0.625 * K * N if int8 else 1.125 * K * N
    label = f"{label}{', INT8' if int8 else ''}: {M} rows, {K} to {N}"
    return Case(label, make, 1.0 * M * K * N, stored + 2.0 * M * (K + N))


class Dense:
    """The layer with its weights unpacked beforehand."""

    def __init__(self) -> None:
        self.unpacked: dict[int, torch.Tensor] = {}

    def __call__(
        self, x: torch.Tensor, values: torch.Tensor, indices: torch.Tensor, scale: torch.Tensor | None
    ) -> torch.Tensor:
        key = values.data_ptr()
        if key not in self.unpacked:
            self.unpacked = {key: unpack24(values, indices, scale).to(x.dtype)}
        return F.linear(x, self.unpacked[key])


CHECK = case("check", 5, 32, 24)
CPU = [case("laptop ViT", 1600, 64, 256), case("laptop ViT", 1600, 256, 64, int8=True)]
GPU = [
    case("ViT-L MLP", M, K, N, int8)
    for M in (12608, 50432)
    for K, N in ((1024, 4096), (4096, 1024))
    for int8 in (False, True)
]
BASELINES = {"dense": Dense()}
