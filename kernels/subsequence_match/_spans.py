"""The rows of `spans` as plain numbers."""

from torch import Tensor


def checked(spans: Tensor, longest: int, variates: int) -> list[tuple[int, int, int, int]]:
    """(length, variate, first, end) of every pattern; ValueError where a row of `longest` or a variate is exceeded."""
    rows = [tuple(row) for row in spans.tolist()]
    for index, (length, variate, _, _) in enumerate(rows):
        if not 1 <= length <= longest or not 0 <= variate < variates:
            raise ValueError(
                f"subsequence_match: pattern {index} has length {length} and variate {variate}:"
                f" expected 1 to {longest} steps and a variate from 0 to {variates - 1}"
            )
    return rows
