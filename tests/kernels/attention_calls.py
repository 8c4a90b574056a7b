"""Calls of attention for its tests: inputs, masks, with and without the log-sum-exp.

Shapes: B batch, h heads, g key heads, T queries, S keys, d width of a head, e of its values.
"""

import importlib.util

import pytest
import torch
from compare import DEVICE, random

import kernels

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
ALL = ["reference", "torch", pytest.param("triton", marks=NEEDS_TRITON)]


def tensors(shape, dtype=torch.float64, scale=1.0):
    B, h, g, T, S, d, e = shape
    return random((B, h, T, d), (B, g, S, d), (B, g, S, e), dtype=dtype, scale=scale)


def masks(kind, shape, dtype=torch.float64):
    """Boolean, with an empty row, or added: one tensor each, in a list."""
    B, h, _, T, S = shape[:5]
    if kind == "boolean":
        seen = random((B, 1, T, S))[0] > -0.3
        seen[0, 0, 0] = False
        return [seen]
    return {
        "none": [],
        "added": random((T, S), dtype=dtype, seed=1),
        "added_per_head": random((h, 1, S), dtype=dtype, seed=1),
    }[kind]


def integers(*values):
    return torch.tensor(values, dtype=torch.int32, device=DEVICE)


def with_lse(**options):
    def call(q, k, v, mask=None):
        return kernels.attention(q, k, v, mask=mask, return_lse=True, **options)

    return call


def without_lse(**options):
    return lambda q, k, v, mask=None: kernels.attention(q, k, v, mask=mask, **options)
