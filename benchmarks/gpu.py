"""The kernels at the papers' shapes on the GPU of this machine, into benchmarks/gpu/: `make bench-gpu`.

First every op by `runner mode=bench`, then AdaSpa's schedule as a whole: dense steps, a search, sparse steps; with the
share of the attention that its blocks hold, on structured queries and keys.
"""

import argparse
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

from kernels import attention
from kernels.block_mass import block_mass, keep_blocks, recall
from kernels.block_sparse_attention import BlockMask, block_sparse_attention
from kernels.tuning import timed

HERE = Path(__file__).resolve().parent
RUNNER = Path(sys.executable).with_name("runner")
STEPS, DENSE, SEARCHES = 50, 10, 2
"""AdaSpa's schedule (arXiv 2502.21079): 50 steps, 10 dense ones first, one search from the cache and one anew."""


def structured(heads: int, tokens: int, dim: int, frame: int, device: torch.device, dtype: torch.dtype) -> list:
    """q, k, v (1, heads, tokens, dim) as a video has them: tokens near in time or place are alike."""
    rng = torch.Generator().manual_seed(0)
    position = torch.arange(tokens)
    places = torch.stack([position / frame, (position % frame) / frame], dim=1)  # time, place: both slowly varying
    waves = torch.randn(heads, 2, dim // 2, generator=rng) * torch.tensor([0.5, 12.0])[None, :, None]
    phase = torch.einsum("np,hpd->hnd", places, waves)
    base = 3.0 * torch.cat([phase.sin(), phase.cos()], dim=-1)[None]
    noise = [0.3 * torch.randn(base.shape, generator=rng) for _ in range(2)]
    value = torch.randn(base.shape, generator=rng)
    return [x.to(device, dtype) for x in (base + noise[0], base + noise[1], value)]


def adaspa(heads: int, tokens: int, dim: int, frame: int, block: int, sparsity: float, device: torch.device) -> str:
    """A line: seconds of the parts, of the schedule with and without AdaSpa, and the recall."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, k, v = structured(heads, tokens, dim, frame, device, dtype)
    _, lse = attention(q, k, v, return_lse=True)

    def search() -> torch.Tensor:
        mass = block_mass(q, k, lse, block=block)
        return keep_blocks(mass, tokens=tokens, block=block, sparsity=sparsity)

    mass = block_mass(q, k, lse, block=block)
    keep = search()
    mask = BlockMask(keep, block, (tokens, tokens))
    parts = {
        "dense": lambda: attention(q, k, v),
        "dense with lse": lambda: attention(q, k, v, return_lse=True),
        "search": search,
        "sparse": lambda: block_sparse_attention(q, k, v, mask),
    }
    seconds = {name: min(timed(part, device) for _ in range(4)) for name, part in parts.items()}
    plain = STEPS * seconds["dense"]
    ours = (DENSE - 1) * seconds["dense"] + seconds["dense with lse"] + SEARCHES * seconds["search"]
    ours += (SEARCHES - 1) * seconds["dense with lse"] + (STEPS - DENSE - SEARCHES + 1) * seconds["sparse"]
    each = ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in seconds.items())
    return (
        f"{heads} heads, {tokens:,} tokens, d {dim}, block {block}, density {mask.density:.3f}, recall "
        f"{recall(mass, keep).mean():.3f}: {each}; {STEPS} steps {plain / ours:.2f} times faster than dense"
    )


@torch.no_grad()
def main() -> None:
    """Writes bench.md, bench.json, bench.png and adaspa.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a size for the CPU, to see that it runs")
    small = parser.parse_args().small
    if not torch.cuda.is_available() and not small:
        sys.exit("benchmarks/gpu.py: there is no GPU here (--small runs AdaSpa's schedule on the CPU)")
    folder = HERE / "gpu"
    if small:
        print(adaspa(2, 1024, 32, 128, 64, 0.7, torch.device("cpu")))
        return
    subprocess.run([str(RUNNER), "mode=bench", "bench.shapes=paper", f"output={folder}"], check=True)
    device = torch.device("cuda")
    lines = [f"# AdaSpa's schedule on {torch.cuda.get_device_name()}, {date.today()}, torch {torch.__version__}", ""]
    for heads, tokens, dim, frame in ((24, 119056, 128, 3600), (40, 75600, 128, 3600), (24, 110592, 128, 4096)):
        lines.append("- " + adaspa(heads, tokens, dim, frame, 64, 0.8, device))
        print(lines[-1])
    (folder / "adaspa.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
