"""Mixers and layers against torch's own modules and against their equations."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import kernels
from models.layers.blocks import DecoderBlock, EncoderBlock
from models.layers.decomposition import SeriesDecomposition
from models.layers.embeddings import StepEmbedding, sinusoids
from models.layers.instance_norm import denormalise, normalise
from models.mixers.attention import Attention
from models.mixers.flow import FlowAttention
from models.mixers.mamba import BiMamba, Mamba
from models.mixers.none import NoMixing

D, HEADS, FF = 12, 3, 20


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
    theirs.out_proj.load_state_dict(ours.o.state_dict())


def copy_rest(ours: nn.Module, theirs: nn.Module, norms: int) -> None:
    theirs.linear1.load_state_dict(ours.ffn.up.state_dict())
    theirs.linear2.load_state_dict(ours.ffn.down.state_dict())
    for i in range(1, norms + 1):
        for norm in (getattr(ours, f"norm{i}"), getattr(theirs, f"norm{i}")):
            nn.init.constant_(norm.weight, 0.5 + i)
            nn.init.constant_(norm.bias, 0.1 * i)


@pytest.mark.parametrize("context", [False, True], ids=["self", "cross"])
def test_attention_equals_torchs_multi_head_attention_in_output_and_weights(context):
    torch.manual_seed(0)
    ours, theirs = Attention(D, HEADS), nn.MultiheadAttention(D, HEADS, batch_first=True)
    copy_attention(ours, theirs)
    x, source = torch.randn(2, 5, D), torch.randn(2, 7, D)
    args = (x, source) if context else (x,)
    source = args[-1]
    expected, weights = theirs(x, source, source, average_attn_weights=False)
    assert_close(ours(*args), expected)
    assert_close(ours.weights(*args), weights)


def test_causal_attention_does_not_see_later_tokens():
    torch.manual_seed(0)
    mixer, x = Attention(D, HEADS, causal=True), torch.randn(1, 6, D)
    other = x.clone()
    other[:, 4:] += 1
    change = (mixer(x) - mixer(other)).abs().amax(-1)[0]
    assert (change[:4] == 0).all()
    assert (change[4:] > 1e-3).all()
    assert torch.equal(mixer.weights(x).triu(1), torch.zeros(1, HEADS, 6, 6))


def test_encoder_block_equals_torchs_encoder_layer():
    torch.manual_seed(0)
    ours = EncoderBlock(D, FF, partial(Attention, heads=HEADS)).eval()
    theirs = nn.TransformerEncoderLayer(D, HEADS, FF, 0.0, "gelu", batch_first=True).eval()
    copy_attention(ours.mixer, theirs.self_attn)
    copy_rest(ours, theirs, norms=2)
    x = torch.randn(2, 5, D)
    assert_close(ours(x), theirs(x))


def test_decoder_block_equals_torchs_decoder_layer():
    torch.manual_seed(0)
    ours = DecoderBlock(D, FF, partial(Attention, heads=HEADS, causal=True), partial(Attention, heads=HEADS)).eval()
    theirs = nn.TransformerDecoderLayer(D, HEADS, FF, 0.0, "gelu", batch_first=True).eval()
    copy_attention(ours.mixer, theirs.self_attn)
    copy_attention(ours.cross, theirs.multihead_attn)
    copy_rest(ours, theirs, norms=3)
    x, memory = torch.randn(2, 5, D), torch.randn(2, 8, D)
    assert_close(ours(x, memory), theirs(x, memory, tgt_mask=nn.Transformer.generate_square_subsequent_mask(5)))


@pytest.mark.parametrize("context", [False, True], ids=["self", "cross"])
def test_flow_attention_equals_its_sums_over_pairs(context):
    torch.manual_seed(0)
    mixer = FlowAttention(D, 1, eps=0.0).double()
    x = torch.randn(1, 4, D, dtype=torch.float64)
    c = torch.randn(1, 6, D, dtype=torch.float64) if context else x
    q, k, v = mixer.q(x)[0].sigmoid(), mixer.k(c)[0].sigmoid(), mixer.v(c)[0]
    T, S = len(q), len(k)
    pairs = q @ k.T  # the flow from source j to sink i is <q_i, k_j>
    incoming, outgoing = pairs.sum(1), pairs.sum(0)
    allocation = torch.sigmoid((pairs / outgoing).sum(1) * T / S)
    competition = S * torch.softmax((pairs / incoming[:, None]).sum(0).clamp(-1, 1), dim=0)
    y = allocation[:, None] * (pairs / incoming[:, None] * competition) @ v
    assert_close(mixer(x, c)[0] if context else mixer(x)[0], mixer.o(y))


def test_mamba_equals_its_equations_token_by_token():
    torch.manual_seed(0)
    n, mixer = 3, Mamba(D, d_state=3).double()
    x = torch.randn(2, 6, D, dtype=torch.float64)
    u, z = mixer.in_proj(x).chunk(2, -1)
    u = F.silu(mixer.conv(F.pad(u.transpose(1, 2), (1, 0))).transpose(1, 2))
    d, B, C = mixer.x_proj(u).split((mixer.rank, n, n), -1)
    delta, A = F.softplus(mixer.dt_proj(d)), -mixer.A_log.exp()
    state, outputs = torch.zeros(2, D, n, dtype=torch.float64), []
    for t in range(6):
        state = torch.exp(delta[:, t, :, None] * A) * state + torch.einsum("bc,bn->bcn", delta[:, t] * u[:, t], B[:, t])
        outputs.append(torch.einsum("bcn,bn->bc", state, C[:, t]) + mixer.D * u[:, t])
    assert_close(mixer(x), mixer.out_proj(torch.stack(outputs, 1) * F.silu(z)), rtol=1e-5, atol=1e-6)


def test_mamba_sees_earlier_tokens_only_and_bimamba_all():
    torch.manual_seed(0)
    x = torch.randn(1, 6, D)
    other = x.clone()
    other[:, 3] += 1
    for mixer, first in ((Mamba(D, 2), 3), (BiMamba(D, 2), 0)):
        change = (mixer(x) - mixer(other)).abs().amax(-1)[0]
        assert (change[:first] == 0).all()
        assert (change[first:] > 0).all()


def test_bimamba_runs_its_second_block_on_the_flipped_tokens():
    torch.manual_seed(0)
    mixer, x = BiMamba(D, 2), torch.randn(2, 5, D)
    assert_close(mixer(x), mixer.forwards(x) + mixer.backwards(x.flip(1)).flip(1))
    assert not torch.equal(mixer.forwards.in_proj.weight, mixer.backwards.in_proj.weight)


def test_mamba_starts_as_published():
    torch.manual_seed(0)
    mixer = Mamba(512, d_state=4)
    assert_close(mixer.A_log.exp(), torch.arange(1.0, 5.0).repeat(512, 1))
    assert (mixer.D == 1).all()
    assert 0.9 * 32**-0.5 < mixer.dt_proj.weight.abs().max() <= 32**-0.5
    steps = F.softplus(mixer.dt_proj.bias)
    assert steps.min() >= 0.999e-3
    assert steps.max() <= 0.1001
    assert steps.log10().mean().item() == pytest.approx(-2, abs=0.1)  # log-uniform in [.001, .1]


def test_no_mixing_leaves_norm_and_ffn_of_a_block():
    torch.manual_seed(0)
    block, x = EncoderBlock(D, FF, NoMixing), torch.randn(2, 3, D)
    h = block.norm1(x)
    assert_close(block(x), block.norm2(h + block.ffn(h)))


@pytest.mark.parametrize("mixer", [Attention, FlowAttention, partial(Mamba, d_state=2), partial(BiMamba, d_state=2)])
def test_backends_give_the_same_inside_a_mixer(mixer):
    torch.manual_seed(0)
    module = mixer(16)
    x = torch.randn(2, 9, 16)
    fast = module(x)
    with kernels.using(attention="reference", selective_scan="reference"):
        assert_close(fast, module(x), rtol=1e-5, atol=1e-6)


def test_dropout_of_attention_acts_in_training_only():
    torch.manual_seed(0)
    mixer, x = Attention(D, HEADS, dropout=0.5), torch.randn(2, 5, D)
    assert (mixer(x) == 0).any()
    assert torch.equal(mixer.eval()(x), mixer(x))
    weights_only = Attention(D, HEADS, dropout=0.5, proj_dropout=0.0)
    assert not (weights_only(x) == 0).any()
    assert not torch.equal(weights_only(x), weights_only(x))


def test_normalise_uses_the_population_deviation_detaches_the_mean_only_and_is_undone():
    x = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    z, mean, std = normalise(x)
    assert_close(std, (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt())
    assert not mean.requires_grad
    assert std.requires_grad
    assert_close(denormalise(z, mean, std), x)


def test_decomposition_continues_the_ends_and_adds_up():
    x = torch.tensor([[[1.0, 2.0, 6.0, 3.0]]])
    season, trend = SeriesDecomposition(3, 4)(x)
    assert_close(trend, torch.tensor([[[4.0, 9.0, 11.0, 12.0]]]) / 3)
    assert_close(season + trend, x)


def test_sinusoids_are_those_of_the_formula_for_even_and_odd_widths():
    table = sinusoids(10, 6)
    for t in (0, 3, 9):
        for i in range(3):
            angle = torch.tensor(t / 10000 ** (2 * i / 6))
            assert_close(table[t, 2 * i : 2 * i + 2], torch.stack((angle.sin(), angle.cos())))
    assert sinusoids(10, 5).shape == (10, 5)


def test_step_embedding_adds_circular_convolution_time_and_positions():
    torch.manual_seed(0)
    embed = StepEmbedding(2, 4, 6, 8)
    x, marks = torch.randn(1, 8, 2), torch.randn(1, 8, 4)
    wrapped = torch.cat((x[:, -1:], x, x[:, :1]), dim=1)
    h = torch.stack([torch.einsum("dck,kc->d", embed.values.weight, wrapped[0, t : t + 3]) for t in range(8)])
    assert_close(embed(x, marks)[0], h + embed.time(marks)[0] + sinusoids(8, 6))
    assert embed.time.bias is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Attention(12, 5), r"d_model=12 is not divisible by heads=5: choose heads from 1, 2, 3, 4, 6, 12$"),
        (lambda: Attention(12, 3, proj_dropout=1.5), r"proj_dropout=1.5 must be a number in \[0, 1\)"),
        (lambda: Attention(12, 3, causal="yes"), r"causal='yes' must be true or false"),
        (lambda: FlowAttention(12, 5), r"d_model=12 is not divisible by heads=5"),
        (lambda: FlowAttention(12, 3, dropout=2), r"dropout=2 must be"),
        (lambda: Mamba(12, d_conv=0), r"d_conv=0 must be a whole number of at least 1"),
        (lambda: BiMamba(12, d_state=2.5), r"d_state=2.5 must be a whole number"),
        (lambda: EncoderBlock(12, 0, NoMixing), r"d_ff=0 must be"),
    ],
    ids=["heads", "proj_dropout", "causal", "flow_heads", "flow_dropout", "d_conv", "d_state", "d_ff"],
)
def test_wrong_values_are_refused_at_construction(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
