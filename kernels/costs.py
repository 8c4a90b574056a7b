"""What attention costs on the device at hand, dense and block-sparse: when does leaving blocks out pay?

A block-sparse kernel does less, but each block costs it more, and the lists of blocks cost something too. Times of a
few calls are fitted by least squares, which answers for any other mask:

    dense  = a0 + a1 * B h T S d
    sparse = b0 + b1 * kept blocks + b2 * rows of blocks

`fit` takes any function that times a call, `timer` is the one for this project's ops. A model holds for one device,
dtype, head dimension and block; `save` and `load` keep it as JSON, one file each. This is the hardware-aware cost of
Sparse-vDiT (arXiv 2506.03065, section 3.2) measured instead of counted.
Shapes: B batch, h heads, T queries, S keys, d head dimension; masks are (B or 1, h or 1, blocks of T, blocks of S).
"""

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

DENSITIES = (0.1, 0.25, 0.5, 1.0)
TOKENS = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192, 16384)}
HEADS = {"cpu": 2, "cuda": 16}


class Shape(NamedTuple):
    """The sizes of a call: B, h, T, S."""

    batch: int
    heads: int
    queries: int
    keys: int


@dataclass(frozen=True)
class CostModel:
    """Seconds of dense and block-sparse attention on one device.

    dense: (a0, a1), sparse: (b0, b1, b2) of the module's equations. error: how far off the worst measured call was,
    as a share of its time. margin: how much faster, as a share, a sparse call has to be to pay.
    """

    device: str
    dtype: str
    head_dim: int
    block: int
    dense: tuple[float, float]
    sparse: tuple[float, float, float]
    error: float
    margin: float

    def dense_seconds(self, shape: Sequence[int]) -> float:
        return float(np.dot(self.dense, _dense_terms(Shape(*shape), self.head_dim)))

    def sparse_seconds(self, shape: Sequence[int], kept: float) -> float:
        """With `kept` blocks computed, over all samples and heads."""
        return float(np.dot(self.sparse, _sparse_terms(Shape(*shape), self.block, kept)))

    def seconds(self, keep: Tensor | None, shape: Sequence[int]) -> float:
        """With the blocks that are True in `keep`; densely where it is None."""
        if keep is None:
            return self.dense_seconds(shape)
        return self.sparse_seconds(shape, kept_blocks(keep, shape, self.block))

    def pays(self, keep: Tensor, shape: Sequence[int]) -> bool:
        """Whether the sparse call is faster for sure: by the margin, with the fit's error against it both times."""
        return self.seconds(keep, shape) < self._limit(shape)

    def cheapest(self, patterns: Mapping[str, Tensor], shape: Sequence[int]) -> str | None:
        """The name of the pattern (of blocks to keep) that takes least; None = dense, where none of them pays."""
        seconds = {name: self.seconds(keep, shape) for name, keep in patterns.items() if self.pays(keep, shape)}
        return min(seconds, key=seconds.__getitem__, default=None)

    def crossover(self, shape: Sequence[int]) -> float:
        """The density (share of blocks kept) up to which leaving blocks out pays: 0 = never, 1 = always."""
        rows, columns = _blocks(Shape(*shape), self.block)
        alone = self.sparse_seconds(shape, 0)
        full = self.sparse_seconds(shape, rows * columns) - alone
        spare = self._limit(shape) - alone
        return min(1.0, spare / full) if spare > 0 and full > 0 else float(spare > 0)

    def _limit(self, shape: Sequence[int]) -> float:
        """What a sparse call may take at most by the fit."""
        return self.dense_seconds(shape) * (1 - self.margin) * (1 - self.error) / (1 + self.error)

    def save(self, folder: str | Path) -> Path:
        path = _path(folder, self.device, self.dtype, self.head_dim, self.block)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
        return path


def load(
    folder: str | Path, device: torch.device | str, dtype: torch.dtype, head_dim: int, block: int = 64
) -> CostModel | None:
    """The model that was fitted for this very device, dtype, head dimension and block, if it was."""
    path = _path(folder, device_name(device), _dtype_name(dtype), head_dim, block)
    if not path.exists():
        return None
    values = json.loads(path.read_text())
    return CostModel(**{**values, "dense": tuple(values["dense"]), "sparse": tuple(values["sparse"])})


def fit(
    device: torch.device | str,
    dtype: torch.dtype,
    head_dim: int,
    time: Callable[[Shape, Tensor | None], float],
    *,
    block: int = 64,
    shapes: Iterable[Sequence[int]] | None = None,
    densities: Sequence[float] = DENSITIES,
    margin: float = 0.05,
) -> CostModel:
    """Fits the model to `time(shape, keep)`, the seconds of a call: dense where `keep` is None, else with those blocks.

    Every shape is timed densely once and once per density, with random blocks, the same number in each row. Lengths
    must differ between the shapes, or what a row costs cannot be told from what a block costs.
    """
    kind = torch.device(device).type
    if shapes is None:
        heads = HEADS.get(kind, HEADS["cuda"])
        shapes = [(1, heads, tokens, tokens) for tokens in TOKENS.get(kind, TOKENS["cuda"])]
    shapes = [Shape(*shape) for shape in shapes]
    if len({(shape.queries, shape.keys) for shape in shapes}) < 2:
        raise ValueError(f"fit needs shapes of at least two lengths, got {shapes}")
    if not 0 <= margin < 1:
        raise ValueError(f"margin={margin} must be in [0, 1): the share of the dense time that has to be saved")
    dense_terms, dense_times, sparse_terms, sparse_times = [], [], [], []
    for shape in shapes:
        dense_terms.append(_dense_terms(shape, head_dim))
        dense_times.append(time(shape, None))
        for density in densities:
            keep = random_keep(shape, block, density).to(device)
            sparse_terms.append(_sparse_terms(shape, block, kept_blocks(keep, shape, block)))
            sparse_times.append(time(shape, keep))
    dense, dense_error = _least_squares(dense_terms, dense_times)
    sparse, sparse_error = _least_squares(sparse_terms, sparse_times)
    error = max(dense_error, sparse_error)
    return CostModel(device_name(device), _dtype_name(dtype), head_dim, block, dense, sparse, error, margin)


def timer(
    device: torch.device | str, dtype: torch.dtype, head_dim: int, *, block: int = 64, repeats: int = 5
) -> Callable[[Shape, Tensor | None], float]:
    """Times the ops `attention` and `block_sparse_attention`, forward, on this device: the fastest of `repeats`."""
    from kernels.attention import attention
    from kernels.block_sparse_attention import BlockMask, block_sparse_attention

    def measure(shape: Shape, keep: Tensor | None) -> float:
        q = torch.randn(shape.batch, shape.heads, shape.queries, head_dim, device=device, dtype=dtype)
        k, v = torch.randn(2, shape.batch, shape.heads, shape.keys, head_dim, device=device, dtype=dtype).unbind(0)
        if keep is None:
            return fastest(lambda: attention(q, k, v), q.device, repeats)
        mask = BlockMask(keep=keep, block=block, tokens=(shape.queries, shape.keys))
        return fastest(lambda: block_sparse_attention(q, k, v, mask), q.device, repeats)

    return measure


@torch.no_grad()
def fastest(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls, after two that compile and warm up."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    for _ in range(repeats + 2):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[2:])


def random_keep(shape: Sequence[int], block: int, density: float) -> Tensor:
    """Random blocks, the same number in every row and one at least, bool (B, h, blocks of T, blocks of S)."""
    B, h, T, S = shape
    rows, columns = -(-T // block), -(-S // block)
    order = torch.rand(B, h, rows, columns, generator=torch.Generator().manual_seed(0)).argsort(-1)
    return order < max(1, round(density * columns))


def kept_blocks(keep: Tensor, shape: Sequence[int], block: int) -> int:
    """How many blocks a call computes; a mask of size 1 in the batch or the heads counts for all of them."""
    shape = Shape(*shape)
    full = (shape.batch, shape.heads, -(-shape.queries // block), -(-shape.keys // block))
    if (
        keep.dim() != 4
        or keep.shape[2:] != full[2:]
        or keep.shape[0] not in (1, full[0])
        or keep.shape[1] not in (1, full[1])
    ):
        raise ValueError(f"keep {tuple(keep.shape)} does not fit {shape} in blocks of {block}: expected {full}")
    return int(keep.sum()) * (full[0] // keep.shape[0]) * (full[1] // keep.shape[1])


def device_name(device: torch.device | str) -> str:
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"


def _path(folder: str | Path, device: str, dtype: str, head_dim: int, block: int) -> Path:
    return Path(folder) / f"{device}-{dtype}-d{head_dim}-block{block}.json".replace(" ", "_").replace("/", "_")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _blocks(shape: Shape, block: int) -> tuple[int, int]:
    """(rows of blocks over all samples and heads, blocks in a row)."""
    return shape.batch * shape.heads * -(-shape.queries // block), -(-shape.keys // block)


def _dense_terms(shape: Shape, head_dim: int) -> tuple[float, float]:
    return 1.0, float(shape.batch * shape.heads * shape.queries * shape.keys * head_dim)


def _sparse_terms(shape: Shape, block: int, kept: float) -> tuple[float, float, float]:
    return 1.0, float(kept), float(_blocks(shape, block)[0])


def _least_squares(terms: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """(coefficients, none negative; the largest error as a share of the time), by relative errors.

    A coefficient that comes out negative, by noise, is held at zero and the others are fitted again.
    """
    seconds = np.asarray(seconds, dtype=float)
    terms = np.asarray(terms, dtype=float) / seconds[:, None]
    size = np.abs(terms).max(0)  # the terms differ by many orders of magnitude
    free, found = list(range(terms.shape[1])), np.zeros(terms.shape[1])
    while free:
        part = np.linalg.lstsq(terms[:, free] / size[free], np.ones(len(seconds)), rcond=None)[0] / size[free]
        if (part >= 0).all():
            found[free] = part
            break
        del free[int(np.argmin(part * size[free]))]
    return tuple(found.tolist()), float(np.abs(terms @ found - 1).max())
