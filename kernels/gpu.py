"""What the Triton backends of all ops share: where they run, and a matrix product that Triton's interpreter can do.

With TRITON_INTERPRET=1 in the environment (before the first import) kernels run on the CPU, number by number in NumPy:
slow, and exact enough to test them on any machine. `auto` never picks them there.
"""

import os

import torch
import triton
import triton.language as tl

REQUIRES = "a CUDA device of compute capability 8.0 or newer (or TRITON_INTERPRET=1, to test on a CPU)"
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether Triton kernels run on this device with tensors of this dtype."""
    if dtype not in DTYPES:
        return False
    if device.type == "cuda":
        return (
            not INTERPRETED.value and torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
        )
    return device.type == "cpu" and INTERPRETED.value


@triton.jit
def dot(a, b, acc):
    """acc + a b in float32, with exact products for float32 operands.

    NumPy knows no bfloat16, so the interpreter multiplies float32 copies.
    """
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")
