"""Ops with several implementations: `kernels.attention(q, k, v)` runs the one that suits the device.

kernels/<op>/__init__.py holds the op's public function and its equation; reference.py is the equation in plain torch,
the definition of correct; the other files compute the same faster. See registry.py for how one is picked.
"""

from kernels.attention import attention
from kernels.registry import choices, configure, recording, using
from kernels.selective_scan import selective_scan

__all__ = ["attention", "choices", "configure", "recording", "selective_scan", "using"]
