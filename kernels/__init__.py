"""Ops with several implementations: `kernels.attention(q, k, v)` runs the one that suits the device.

kernels/<op>/__init__.py holds the op's public function and its equation; reference.py is the equation in plain torch,
the definition of correct; the other files compute the same faster. See registry.py for how one is picked, tuning.py for
what `auto` measures, cases.py for the shapes on which an op is checked and timed.
"""

from kernels.attention import attention
from kernels.block_mass import block_mass
from kernels.block_sparse_attention import BlockMask, block_sparse_attention
from kernels.causal_conv import causal_conv
from kernels.fp_linear import fp_linear
from kernels.grouped_linear import grouped_linear
from kernels.joint_local_global_attention import joint_local_global_attention
from kernels.linear_attention import linear_attention
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.matrix_profile import matrix_profile
from kernels.registry import choices, configure, recording, using
from kernels.selective_scan import selective_scan
from kernels.sparse24_linear import sparse24_linear
from kernels.stripe_attention import stripe_attention
from kernels.subsequence_match import subsequence_match

__all__ = [
    "BlockMask",
    "attention",
    "block_mass",
    "block_sparse_attention",
    "causal_conv",
    "choices",
    "configure",
    "fp_linear",
    "grouped_linear",
    "joint_local_global_attention",
    "linear_attention",
    "linear_cross_entropy",
    "matrix_profile",
    "recording",
    "selective_scan",
    "sparse24_linear",
    "stripe_attention",
    "subsequence_match",
    "using",
]
