"""Shapes of the shapelet search: of a filter in training, of discovery on NATOPS, of prototypes at any offset."""

import torch

from kernels.cases import Arguments, Case, normal


def case(label: str, B: int, L: int, N: int, S: int, lengths: tuple[int, ...], window: int) -> Case:
    """S patterns cut from the series, of these lengths in turn, at most `window` steps from where they stem."""
    rng = torch.Generator().manual_seed(0)
    steps = torch.tensor(lengths).repeat(-(-S // len(lengths)))[:S]
    variates = torch.randint(N, (S,), generator=rng)
    starts = (torch.rand(S, generator=rng) * (L - steps + 1)).long()
    first, end = (starts - window).clamp(min=0), torch.minimum(starts + window, L - steps) + 1
    spans = torch.stack((steps, variates, first, end), 1)

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        x = normal(B, L, N, device=device, dtype=dtype, grad=False)
        at = (starts[:, None] + torch.arange(max(lengths))).clamp(max=L - 1).to(device)
        rows = torch.arange(S, device=device)[:, None] % B
        return (x, x[rows, at, variates.to(device)[:, None]] + 0.1, spans), {"complexity": True}

    products = 2.0 * B * float(((end - first) * steps).sum())
    text = f"{label}: {B} series of {L} steps, {N} variates, {S} patterns of {min(lengths)} to {max(lengths)}"
    return Case(text, make, products, 2.0 * (B * L * N + S * max(lengths) + 5 * B * S))


CHECK = case("check", 3, 40, 2, 7, (3, 5), 8)
CPU = [case("filter", 16, 30, 6, 40, (3, 5, 8, 12), 10), case("discovery", 180, 51, 24, 2000, (3, 5, 8, 12), 20)]
GPU = [case("NATOPS", 180, 51, 24, 100000, (3, 5, 8, 12), 20), case("prototypes", 270, 144, 9, 1000, (21, 43), 144)]
BASELINES = {}
