"""Where in a series a short pattern fits best: the search of shapelets and motifs.

Complexity invariance: Batista et al. (2014), "CID: an efficient complexity-invariant distance for time series".
"""

from torch import Tensor

from kernels.registry import call


def subsequence_match(
    x: Tensor, values: Tensor, spans: Tensor, *, lengths: Tensor | None = None, complexity: bool = False
) -> tuple[Tensor, Tensor]:
    """The least distance of every pattern to the subsequences of every series, and the offset where it is found:

        d[b, s] = min over o of f(q, w) |q - w|^2 / l,    q = values[s, :l],    w = x[b, o : o + l, v]
        f = 1, or with `complexity` (max(c(q), c(w)) / min(c(q), c(w)))^2,    c(y)^2 = 1e-3 + sum of (y[i+1] - y[i])^2

    with l, v, first, end = spans[s] and first <= o < end, 0 <= o <= length of series b - l.
    x: (B, L, N), a series is what comes before its length. values: (S, W), a pattern is the first l of a row.
    spans: (S, 4) int64, for each pattern its length, its variate and the offsets; read by the host: keep it on the CPU.
    lengths: (B,) integers; L where None.
    -> (distances (B, S) in float32, float64 for float64; offsets (B, S) int64, the first where several are as near). A
    series without a permitted offset is at distance inf, offset -1. With `complexity`, sqrt(l d) is the paper's CID.
    A search and so not differentiable: gradients stop here.
    """
    if x.dim() != 3 or values.dim() != 2 or spans.shape != (len(values), 4):
        raise ValueError(
            f"subsequence_match: x {tuple(x.shape)}, values {tuple(values.shape)}, spans {tuple(spans.shape)} do not"
            " fit: expected (B, L, N), (S, W), (S, 4)"
        )
    if spans.is_floating_point() or values.dtype != x.dtype:
        raise ValueError(
            f"subsequence_match: spans of {spans.dtype} must be integers, values of {values.dtype} of x's {x.dtype}"
        )
    if lengths is not None and (lengths.shape != x.shape[:1] or lengths.is_floating_point()):
        raise ValueError(
            f"subsequence_match: lengths {tuple(lengths.shape)} of {lengths.dtype} must be one integer for each of the"
            f" {len(x)} series"
        )
    return call("subsequence_match", x.detach(), values.detach(), spans.cpu(), lengths=lengths, complexity=complexity)
