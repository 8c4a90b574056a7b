"""What a device can do at most, measured: the scale on which kernels are judged."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import torch

from kernels.tuning import timed

SIZE = {"cuda": 8192, "cpu": 1024}
BYTES = {"cuda": 2**30, "cpu": 2**27}


@dataclass(frozen=True)
class Ceiling:
    """The best rates of a large matrix product and of a large copy.

    Args:
        device: its name.
        tflops: 1e12 floating-point operations per second of the product, in the dtype of the benchmark.
        gbs: 1e9 bytes read and written per second of the copy.
        versions: of what the figures depend on.
    """

    device: str
    tflops: float
    gbs: float
    versions: dict[str, str]

    def words(self) -> str:
        """The rates, in a line."""
        return f"at most {self.tflops:.3g} TFLOP/s (matrix product), {self.gbs:.3g} GB/s (copy)"


def ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """Measures a device, in a second or so."""
    n = SIZE[device.type]
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    product = best(lambda: a @ b, device)
    source = torch.empty(BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = best(lambda: target.copy_(source), device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return Ceiling(name, 2 * n**3 / product / 1e12, 2 * source.numel() / copy / 1e9, versions())


def best(action, device: torch.device) -> float:
    """Median seconds of the action, once it is warm."""
    return median([timed(action, device) for _ in range(8)][3:])


def versions() -> dict[str, str]:
    """Of Python, torch and triton."""
    found = {"python": sys.version.split()[0], "torch": torch.__version__}
    with suppress(PackageNotFoundError):
        found["triton"] = version("triton")
    return found
