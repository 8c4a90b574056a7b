"""Shapes of 4-bit linear layers: a laptop encoder's and LLaMA-7B's, for few rows and for many."""

import torch
import torch.nn.functional as F

from kernels.cases import Arguments, Case, normal
from kernels.fp_linear import FloatFormat, decode, encode, pack4, unpack4

E2M1 = FloatFormat(2, 1)


def case(label: str, M: int, K: int, N: int) -> Case:
    """Weights in E2M1, two codes a byte, a bias of the exponent per output; inputs as they are."""

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        weight = K**-0.5 * normal(N, K, device=device, dtype=torch.float32, seed=1, grad=False)
        bias = E2M1.bias(weight.abs().amax(1))
        codes = pack4(encode(weight, E2M1, bias[:, None]))
        return (normal(M, K, device=device, dtype=dtype), codes, E2M1, bias), {}

    return Case(f"{label}: {M} rows, {K} to {N}", make, 2.0 * M * K * N, 0.5 * K * N + 2.0 * M * (K + N))


class Dense:
    """The layer with its weights decoded beforehand, in the dtype of the inputs."""

    def __init__(self) -> None:
        self.decoded: dict[int, torch.Tensor] = {}

    def __call__(self, x: torch.Tensor, codes: torch.Tensor, format: FloatFormat, bias: torch.Tensor) -> torch.Tensor:
        key = codes.data_ptr()
        if key not in self.decoded:
            self.decoded = {key: decode(unpack4(codes, x.shape[-1]), format, bias[:, None]).to(x.dtype)}
        return F.linear(x, self.decoded[key])


CHECK = case("check", 5, 32, 24)
CPU = [case("laptop encoder", 512, 128, 128), case("laptop encoder, MLP", 512, 128, 512)]
GPU = [case(f"LLaMA-7B {K} x {N}", M, K, N) for K, N in ((4096, 4096), (4096, 11008)) for M in (1, 16, 2048)]
BASELINES = {"dense": Dense()}
