"""Where the stripes of a map lie."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """Some of the heads and their stripes, `rows` x `columns` of them, each `height` x `width` pixels.

    The first one starts at row -top and column -left of the map: padding, as is what the last ones have beyond it.
    """

    heads: slice
    height: int
    width: int
    rows: int
    columns: int
    top: int
    left: int


def branches(heads: int, size: tuple[int, int], stripe: int, pad: bool) -> list[Branch]:
    """The vertical and the horizontal branch, or the only one where a stripe is the whole map."""
    H, W = size
    if stripe < 1:
        raise ValueError(f"stripe_attention: stripe={stripe} must be at least 1 pixel")
    height, width = min(stripe, H), min(stripe, W)
    if (height, width) == size:
        return [Branch(slice(0, heads), H, W, 1, 1, 0, 0)]
    if heads % 2:
        raise ValueError(f"stripe_attention: {heads} heads cannot be halved between vertical and horizontal stripes")
    if not pad and (H % height or W % width):
        fitting = [n for n in range(1, max(H, W) + 1) if H % min(n, H) == 0 and W % min(n, W) == 0]
        raise ValueError(
            f"stripe_attention: the map {H}x{W} is not divisible by stripe={stripe}; set pad=True or stripe in"
            f" {', '.join(map(str, fitting))}"
        )
    half, rows, columns = heads // 2, -(-H // height), -(-W // width)
    return [
        Branch(slice(0, half), H, width, 1, columns, 0, (columns * width - W) // 2),
        Branch(slice(half, heads), height, W, rows, 1, (rows * height - H) // 2, 0),
    ]
