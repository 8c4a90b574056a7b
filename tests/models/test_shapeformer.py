"""ShapeFormer: tokens and weights by hand, switches, adoption and loading, parameter counts, refusals."""

import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from models.shapeformer import NormAttention, ShapeFormer
from models.shapelets import Shapelet

SMALL = {"window": 6, "per_class": 3, "d_spe": 8, "d_gen": 8, "heads": 4, "d_ff": 16, "dropout": 0.0}


def series(cases=12, steps=24, classes=3):
    rng = torch.Generator().manual_seed(0)
    x, labels = torch.randn(cases, steps, 2, generator=rng), torch.arange(cases) % classes
    return x.cumsum(1), torch.full((cases,), steps), labels


def built(**options):
    torch.manual_seed(0)
    return ShapeFormer(24, 2, 3, **SMALL | options).eval()


def adopted(**options):
    model = built(**options)
    model.adopt(model.discover(*series()))
    return model


def by_formula(model):
    """Parameters of the class docstring, from the shapelets that the model says it has."""
    own, D, F_ = model.shapelets(), SMALL["d_spe"], SMALL["d_ff"]
    block = 3 * D * D + 2 * D * F_ + F_ + D + 6 * D
    P, G = sum(s.end - s.start for s in own), len(own)
    codes = sum(1 + max(getattr(s, name) for s in own) for name in ("start", "end", "variate"))
    specific = P * (1 + 2 * D) + 2 * G * D + D * (codes + 3) + G + block
    generic = D * (8 + 1 + 2) + D * (2 * D + 1 + 2) + 24 * D + block
    return {"specific": specific, "generic": generic, "both": specific + generic}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_logits_have_a_value_for_each_class_before_and_after_adoption():
    x, lengths, _ = series()
    assert built()(x).shape == adopted()(x, lengths).shape == (12, 3)


def test_parameters_are_as_many_as_the_formula_says():
    expected = by_formula(adopted())
    head = {"specific": 8 * 3 + 3, "generic": 8 * 3 + 3, "both": 16 * 3 + 3}
    for module, parameters in expected.items():
        assert count(adopted(module=module)) == parameters + head[module]


def test_shapelets_are_subsequences_of_the_training_series_and_the_best_comes_first():
    x, _, labels = series()
    model = adopted()
    found, tokens = model.shapelets(), model.specific.tokens
    assert len(found) == 9 and found[0].gain == max(s.gain for s in found)
    assert all(s.label == labels[s.case] for s in found)
    assert_close(tokens.values.detach(), torch.cat([x[s.case, s.start : s.end, s.variate] for s in found]))
    assert_close(tokens.weight.detach(), 9 * torch.softmax(20 * torch.tensor([s.gain for s in found]), 0))


@pytest.mark.parametrize("feature", ["subtract", "euclid", "manhattan"])
@pytest.mark.parametrize("position", ["shapelet", "bestfit"])
def test_a_token_is_the_difference_of_two_maps_and_its_place(feature, position):
    x, _, _ = series()
    model = adopted(feature=feature, position=position)
    tokens = model.specific.tokens
    u, first = tokens(x), 0
    for n, s in enumerate(model.shapelets()):
        steps = s.end - s.start
        rows = slice(first, first := first + steps)
        window = x[:, max(0, s.start - 6) : s.end + 6, s.variate].unfold(1, steps, 1)
        c = [1e-3 + y.diff(dim=-1).square().sum(-1) for y in (window, tokens.values[rows])]
        squares = (window - tokens.values[rows]).square().sum(-1)
        at = (squares * torch.maximum(c[0] / c[1], c[1] / c[0])).argmin(1)
        best = window[torch.arange(12), at]
        expected = best @ tokens.of_series[rows] + tokens.of_series_bias[n]
        expected = expected - (tokens.values[rows] @ tokens.of_shapelet[rows] + tokens.of_shapelet_bias[n])
        expected = {"subtract": expected, "euclid": expected**2, "manhattan": expected.abs()}[feature]
        start = at + max(0, s.start - 6) if position == "bestfit" else torch.full((12,), s.start)
        places = {"start": start, "end": start + steps, "variate": torch.full((12,), s.variate)}
        for name, place in places.items():
            linear = getattr(tokens, name)
            expected = expected + linear(F.one_hot(place, linear.in_features).float())
        assert_close(u[:, n], expected, rtol=1e-4, atol=1e-4)


def test_the_kept_token_is_that_of_a_block_over_all_of_them():
    x, _, _ = series()
    specific = adopted().specific
    u, w = specific.tokens(x), specific.tokens.weight[:, None]
    block = specific.block
    z = block.norm1((u + block.attention(u, u)) * w)
    z = block.norm2(z + block.ffn(z)) * w
    assert_close(specific(x), z[:, 0])
    specific.token = "mean"
    assert_close(specific(x), z.mean(1))


def test_attention_is_scaled_by_the_full_width_and_normalised():
    torch.manual_seed(0)
    attend, x = NormAttention(8, 2), torch.randn(2, 5, 8)
    q, k, v = (f(x).view(2, 5, 2, 4).transpose(1, 2) for f in (attend.q, attend.k, attend.v))
    out = torch.softmax(q @ k.mT / 8**0.5, -1) @ v
    assert_close(attend(x, x), F.layer_norm(out.transpose(1, 2).reshape(2, 5, 8), (8,)))


def test_gradients_reach_the_shapelets_unless_they_are_fixed():
    x, _, labels = series()
    model = adopted().train()
    F.cross_entropy(model(x), labels).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.specific.tokens.values.grad.abs().sum() > 0
    fixed = adopted(shapelets_trainable=False)
    assert not fixed.specific.tokens.values.requires_grad


@pytest.mark.parametrize(
    "options",
    [{"token": "learned"}, {"token": "mean"}, {"module": "generic"}, {"shapelets": "random"}, {"shapelets": "none"}],
    ids=str,
)
def test_every_switch_gives_a_model_of_its_own(options):
    x, _, _ = series()
    model = adopted(**options)
    assert model(x).shape == (12, 3)
    assert not torch.equal(model(x), adopted()(x))


def test_shapelets_that_stem_from_no_data_are_noise_at_regular_places():
    for model in (adopted(shapelets="none"), built(), adopted(module="generic")):
        assert model.shapelets() == []
    assert adopted(shapelets="none").discover(*series()) == {}
    assert [row[2:4] for row in built().specific.tokens.places.tolist()[::4]] == [[0, 4], [10, 14], [20, 24]]


def test_discovery_names_all_that_its_result_depends_on():
    assert built().discovery == {
        "source": "discovered",
        "window": 6,
        "per_class": 3,
        "pips": 0.2,
        "ig_splits": "all",
        "candidate_cases": None,
    }
    assert built(shapelets="random", seed=3).discovery["seed"] == 3
    assert built(candidate_cases=2, seed=3).discovery["seed"] == 3
    assert built(module="generic").discovery == built(shapelets="none").discovery == {"source": "none"}


def test_discovery_leaves_model_and_generator_alone():
    model = built()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    model.discover(*series())
    assert torch.get_rng_state().equal(before)
    assert_close(model.state_dict(), state)


def test_a_trained_state_loads_into_a_fresh_model():
    x, lengths, _ = series()
    for options in ({}, {"position": "bestfit"}, {"token": "learned"}):
        model, fresh = adopted(**options), built(**options)
        fresh.specific.tokens.take_shapes(model.specific.tokens.state_dict())
        fresh.load_state_dict(model.state_dict())
        assert_close(fresh(x, lengths), model(x, lengths), rtol=0, atol=0)
        assert fresh.shapelets() == model.shapelets()


def test_the_model_builds_and_runs_without_data_or_memory():
    with torch.device("meta"):
        model = ShapeFormer(24, 2, 3, **SMALL)
        assert model(torch.empty(4, 24, 2)).shape == (4, 3)


def test_steps_after_the_end_do_not_count_and_a_short_series_has_logits():
    x, lengths, _ = series()
    lengths[:3] = torch.tensor([20, 5, 2])
    for case, length in enumerate(lengths.tolist()):
        x[case, length:] = 0.0
    model = adopted()
    full = model(x, lengths)
    assert full.isfinite().all()
    assert not torch.allclose(full[0], model(x)[0])
    assert_close(full[3:], model(x)[3:])


def test_a_series_that_ends_before_a_shapelets_window_is_taken_at_the_shapelets_place():
    model = built()
    tokens = model.specific.tokens
    x = torch.randn(1, 24, 2)
    x[:, 2:] = 0.0
    _, variate, start, _, _ = tokens.places[-1].tolist()
    u = tokens(x, torch.tensor([2]))[0, -1]
    shapelet = tokens.values[-4:] @ tokens.of_shapelet[-4:] + tokens.of_shapelet_bias[-1]
    place = tokens.start.weight[:, start] + tokens.end.weight[:, start + 4] + tokens.variate.weight[:, variate]
    place = place + tokens.start.bias + tokens.end.bias + tokens.variate.bias
    assert_close(u, tokens.of_series_bias[-1] - shapelet + place)


def test_a_window_of_more_than_half_the_series_is_clipped_and_said(caplog):
    with caplog.at_level(logging.WARNING, "models.shapeformer"):
        model = built(window=20)
    assert "window=20 is more than half of the 24 steps: taking 12" in caplog.text
    assert model.discovery["window"] == 12 and built(window=12).discovery["window"] == 12


def test_shapelets_of_other_data_are_refused():
    found = built().discover(*series())
    found["places"][0, 3] = 25
    with pytest.raises(ValueError, match=r"shapelet 0 covers steps \d+ to 25 .* length=24 .* found in other data"):
        built().adopt(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 16, "d_gen": 8, "d_spe": 32}, "heads=16 does not divide d_gen=8: d_spe and d_gen must both be"),
        ({"heads": 3}, "heads=3 does not divide d_spe=8 and d_gen=8"),
        ({"window": -1}, "window=-1 must be a whole number of at least 0"),
        ({"per_class": 0}, "per_class=0 must be a whole number"),
        ({"pips": 1.0}, "pips=1.0 must be a number in"),
        ({"candidate_cases": 0}, "candidate_cases=0 must be"),
        ({"ig_splits": "best"}, "ig_splits='best' is unknown: choose from all, quintiles"),
        ({"module": "local"}, "module='local' is unknown: choose from both, specific, generic"),
        ({"shapelets": "common"}, "shapelets='common' is unknown"),
        ({"position": "none"}, "position='none' is unknown: choose from shapelet, bestfit"),
        ({"feature": "cosine"}, "feature='cosine' is unknown: choose from subtract, euclid, manhattan"),
        ({"token": "last"}, "token='last' is unknown: choose from first, mean, learned"),
        ({"shapelets_trainable": 1}, "shapelets_trainable=1 must be true or false"),
        ({"length": 3}, "length=3 is too short for shapelets"),
        ({"classes": 1}, "classes=1 must be a whole number of at least 2"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ShapeFormer(**{"length": 24, "variates": 2, "classes": 3, **SMALL, **options})


def test_series_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"20 steps of 2 variates, the model was built for length=24 and variates=2"):
        built()(torch.zeros(1, 20, 2))


def test_a_shapelet_is_a_value():
    one = Shapelet(case=0, variate=1, start=2, end=5, label=0, gain=0.5)
    assert one == replace(one) and hash(one) == hash(replace(one))
