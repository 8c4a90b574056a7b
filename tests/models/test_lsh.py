"""LSH attention against full attention where chunks hold everything, and chunk by chunk."""

import pytest
import torch
from torch.testing import assert_close

from models.mixers.lsh import LshAttention

D, HEADS = 8, 2


def build(**options):
    torch.manual_seed(0)
    return LshAttention(D, HEADS, **options).double().eval()


def tokens(count, batch=2):
    return torch.randn(batch, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def projected(mixer, x):
    return (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (mixer.qk, mixer.v))


def scores_of(q):
    scores = q @ torch.nn.functional.normalize(q, dim=-1).transpose(-1, -2) / (D // HEADS) ** 0.5
    own = torch.eye(q.shape[-2], dtype=torch.bool)
    return scores.masked_fill(own, -5e4)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("T", [8, 7, 5, 1])
def test_two_chunks_see_everything_so_it_is_full_attention_without_oneself_or_the_padding(T, causal):
    mixer, x = build(causal=causal), tokens(T)
    q, v = projected(mixer, x)
    scores = scores_of(q)
    if causal:
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))
    assert_close(mixer(x), mixer.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


def test_a_token_attends_to_its_own_chunk_and_the_one_before_in_every_hash():
    mixer, x = build(bucket=3, hashes=2), tokens(24)
    q, v = projected(mixer, x)
    scores, order, y = scores_of(q).exp(), mixer.order(q), torch.zeros_like(v)
    for b in range(2):
        for h in range(HEADS):
            for i in range(24):
                above = below = 0
                for r in range(2):
                    chunks = order[b, h, r].view(-1, 3).tolist()
                    at = next(n for n, chunk in enumerate(chunks) if i in chunk)
                    seen = chunks[at] + chunks[at - 1]
                    above = above + scores[b, h, i, seen] @ v[b, h, seen]
                    below = below + scores[b, h, i, seen].sum()
                y[b, h, i] = above / below
    assert_close(mixer(x), mixer.o(y.transpose(1, 2).flatten(2)))


def test_equal_tokens_stand_side_by_side_and_opposite_ones_apart():
    mixer, x = build(), tokens(1).repeat(1, 32, 1)
    x[:, 1::2] *= -1
    q, _ = projected(mixer, x)
    odd = mixer.order(q) % 2
    assert ((odd.diff(dim=-1) != 0).sum(-1) == 1).all()


def test_training_hashes_by_torchs_seed_and_evaluation_always_the_same():
    mixer, x = build(), tokens(40)
    mixer.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(mixer(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    mixer.eval()
    state = torch.get_rng_state()
    assert torch.equal(mixer(x), mixer(x)) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_gradients_are_finite_and_reach_every_projection(causal):
    mixer, x = build(causal=causal).train(), tokens(13).requires_grad_()
    mixer(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in mixer.parameters())


@pytest.mark.parametrize("wrong", [{"bucket": 0}, {"hashes": 0}, {"causal": 1}], ids=str)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        LshAttention(D, HEADS, **wrong)
