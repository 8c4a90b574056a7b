"""FEDformer's Fourier block and cross block against the equations, mode by mode."""

import logging

import pytest
import torch
from torch.testing import assert_close

from models.mixers.fourier import FourierMixer, draw_modes

D, HEADS = 8, 2


def build(length, context=None, **options):
    torch.manual_seed(0)
    mixer = FourierMixer(D, length, context, **({"heads": HEADS, "modes": 3} | options)).double()
    torch.nn.init.normal_(mixer.maps.weight)  # at 1 / D^2 the output would be all bias
    return mixer


def tokens(count, seed=1):
    return torch.randn(2, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def complex_weight(mixer):
    return torch.complex(mixer.maps.weight[..., 0], mixer.maps.weight[..., 1])


def heads_of(x):
    return torch.fft.rfft(x, dim=1).unflatten(-1, (HEADS, -1))


def back(mixer, spectrum, length):
    return mixer.o(torch.fft.irfft(spectrum.flatten(2), n=length, dim=1))


@pytest.mark.parametrize("quirk", ["none", "official"])
@pytest.mark.parametrize("T", [16, 17], ids=["even", "odd"])
def test_each_drawn_mode_is_mapped_by_its_own_matrix(quirk, T):
    mixer, x = build(T, quirk=quirk), tokens(T)
    spectrum, weight = heads_of(mixer.q(x)), complex_weight(mixer)
    out = torch.zeros_like(spectrum)
    for position, mode in enumerate(mixer.maps.modes.tolist()):
        for h in range(HEADS):
            target = position if quirk == "official" else mode  # the quirk: results at the lowest frequencies
            out[:, target, h] = spectrum[:, mode, h] @ weight[h, :, :, position]
    assert_close(mixer(x), back(mixer, out, T))


@pytest.mark.parametrize("S", [12, 21])
def test_the_cross_block_attends_between_modes(S):
    mixer, x, context = build(16, S), tokens(16), tokens(S, seed=2)
    q, k, weight = heads_of(mixer.q(x)), heads_of(mixer.k(context)), complex_weight(mixer)
    ours, theirs = mixer.maps.modes, mixer.maps.context_modes
    out = torch.zeros_like(q)
    for h in range(HEADS):
        scores = torch.stack([(q[:, m, h, None] * k[:, theirs, h]).sum(-1) for m in ours.tolist()], 1)
        scores = torch.complex(scores.real.tanh(), scores.imag.tanh())
        mixed = scores @ k[:, theirs, h]
        for position, mode in enumerate(ours.tolist()):
            out[:, mode, h] = mixed[:, position] @ weight[h, :, :, position] / D**2
    assert_close(mixer(x, context), back(mixer, out, 16))


def test_modes_come_from_the_seed_alone_and_are_stored_in_the_checkpoint():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    modes = draw_modes("length", 96, 10, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(modes, draw_modes("length", 96, 10, seed=0))
    assert not torch.equal(modes, draw_modes("length", 96, 10, seed=1))
    assert modes.unique().tolist() == modes.tolist() and modes.max() < 48
    first, second = build(24, seed=0), build(24, seed=5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tokens(24)), second(tokens(24)))


def test_more_modes_than_half_the_length_are_clipped_and_logged(caplog):
    with caplog.at_level(logging.INFO):
        assert build(17, modes=64).maps.modes.tolist() == list(range(8))
    assert caplog.messages == ["modes=64 is more than half of length=17: 8 are used"]


def test_shared_weights_are_the_same_tensor_and_count_once():
    first, second = build(16), build(16)
    second.share(first)
    assert second.maps.weight is first.maps.weight
    pair = torch.nn.ModuleList([first, second])
    rest = sum(p.numel() for layer in (first.q, first.o) for p in layer.parameters())
    assert sum(p.numel() for p in pair.parameters()) == 2 * rest + 2 * HEADS * (D // HEADS) ** 2 * 3


@pytest.mark.parametrize("context", [None, 12], ids=["self", "cross"])
@pytest.mark.parametrize("quirk", ["none", "official"])
def test_gradients_are_finite_and_reach_all_that_can_learn(context, quirk):
    mixer, x = build(17, context, quirk=quirk), tokens(17).requires_grad_()
    mixer(x, *([tokens(context)] if context else [])).square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0
    learning = [p for p in mixer.parameters() if p.requires_grad]
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in learning)


def test_half_precision_keeps_its_type():
    x = tokens(16).bfloat16()
    assert build(16).bfloat16()(x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": None}, r"length=None: Fourier modes belong to a fixed number of tokens"),
        ({"length": 1}, r"length=1 must be a whole number of at least 2"),
        ({"modes": 0}, r"modes=0 must be"),
        ({"seed": -1}, r"seed=-1 must be a whole number of at least 0"),
        ({"heads": 3}, r"d_model=8 is not divisible by heads=3"),
        ({"quirk": "old"}, r"quirk='old' is unknown: choose from none, official"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FourierMixer(D, **({"length": 16, "heads": HEADS} | options))


@pytest.mark.parametrize(("length", "context"), [(15, None), (16, 12)])
def test_another_number_of_tokens_than_it_was_built_for_is_refused(length, context):
    with pytest.raises(ValueError, match=rf"got {length} tokens and a context of {context}, built for length=16"):
        build(16)(tokens(length), tokens(context) if context else None)
