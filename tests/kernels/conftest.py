"""Kernels are tested on a GPU where there is one (`pytest -m gpu`), else on the CPU by Triton's interpreter."""

import os
from pathlib import Path

import pytest
import torch

ON_GPU = torch.cuda.is_available()
os.environ.setdefault("TRITON_INTERPRET", "0" if ON_GPU else "1")  # read when Triton is first imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU every test of this folder is one of a GPU."""
    here = Path(__file__).parent
    for item in items:
        if ON_GPU and here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
