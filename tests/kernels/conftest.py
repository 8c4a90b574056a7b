"""Kernels are tested on a GPU where there is one (`pytest -m gpu`), else on the CPU by Triton's interpreter."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU every test of this folder is one of a GPU."""
    here = Path(__file__).parent
    for item in items:
        if torch.cuda.is_available() and here in item.path.parents:
            item.add_marker(pytest.mark.gpu)
