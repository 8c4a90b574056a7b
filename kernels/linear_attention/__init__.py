"""Linear attention (Katharopoulos et al. 2020, arXiv 2006.16236, eq. 4-9), of Performer's features or any others."""

from torch import Tensor

from kernels.registry import call


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    normalize: bool = True,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Attention with the weights q_i . k_j, at a cost linear in the tokens:

        y_i = q_i S_i / (q_i . z_i),   S_i = sum_j k_j^T v_j,   z_i = sum_j k_j,   over all j, or j <= i where causal

    q: (B, h, T, m), k: (B, h, S, m), v: (B, h, S, e) of one dtype -> (B, h, T, e). q and k come as features: phi is
    the caller's (FAVOR+, elu + 1), and no entry is negative where `normalize` divides by q_i . z_i.
    normalize: False leaves the division out (MossFormer, arXiv 2302.11824, whose global part scales by 1 / S).
    key_mask: (B, S), False at padding: zeroes k_j as it is given here, that is phi(k_j).
    No eps is added: y does not change with the scale of k. Where q_i . z_i is 0 (all keys masked) y_i and its gradients
    are 0. Sums are float32 at least, under autocast too.
    """
    if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1] or q.shape[:-2] != k.shape[:-2] or q.ndim != 4:
        raise ValueError(
            f"linear_attention: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)} do not fit:"
            " expected (B, h, T, m), (B, h, S, m), (B, h, S, e)"
        )
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"linear_attention: {q.shape[-2]} queries and {k.shape[-2]} keys: causal needs as many keys as queries"
        )
    if key_mask is not None:
        if key_mask.shape != (k.shape[0], k.shape[2]):
            raise ValueError(
                f"linear_attention: key_mask {tuple(key_mask.shape)} does not fit k {tuple(k.shape)}:"
                f" expected (B, S) = {(k.shape[0], k.shape[2])}"
            )
        k = k.masked_fill(~key_mask[:, None, :, None], 0.0)
    return call("linear_attention", q, k, v, causal=causal, normalize=normalize)
