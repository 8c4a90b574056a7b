"""VSFormer: its tokens, what labels change in it, its size, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from models.mixers.attention import Attention
from models.mixers.prior_attention import OverlapAttention, PriorAttention
from models.vsformer import VSFormer

SMALL = {"d_model": 16, "heads": 2, "d_ff": 24}


def cases(count=12, L=20, N=2, classes=3, seed=0):
    """Noise, and in each class a bump of its own in variate 0."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, L, N, generator=rng)
    y = torch.arange(count) % classes
    t = torch.linspace(0, 1, 6)
    bumps = torch.stack([torch.sin(6.3 * t), t * 2 - 1, (6.3 * t).cos()])
    for case in range(count):
        start = int(torch.randint(L - 6, (1,), generator=rng))
        x[case, start : start + 6, 0] += 2 * bumps[y[case]]
    return x, torch.full((count,), L), y


def model(data=None, seed=0, **options):
    """One that has adopted what its cases have to say."""
    x, lengths, y = data or cases()
    torch.manual_seed(seed)
    net = VSFormer(x.shape[1], x.shape[2], int(y.max()) + 1, **(SMALL | options))
    net.adopt(net.discover(x, lengths, y))
    return net.eval()


OPTIONS = [
    {},
    {"tokens": "shape"},
    {"tokens": "value"},
    {"prior": "encoding"},
    {"prior": "attention", "depth": 2},
    {"prior": "none", "motifs": 2},
    {"pesa": "svp", "levels": [1, 3]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_classifies_and_every_parameter_learns(options):
    net, (x, lengths, y) = model(**options).train(), cases()
    for layer in net.layers:
        for name in ("alike", "telling", "scale"):
            if hasattr(layer.mixer, name):
                torch.nn.init.constant_(getattr(layer.mixer, name), 0.5)
    logits = net(x, lengths)
    assert logits.shape == (12, 3)
    F.cross_entropy(logits, y).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in idle if not name.endswith("k.bias")] == []  # softmax ignores a shift of all keys


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_has_the_parameters_of_its_formula(options):
    with torch.device("meta"):
        net = VSFormer(30, 6, 4, d_model=64, heads=8, d_ff=128, **options)
    tokens, prior = options.get("tokens", "both"), options.get("prior", "both")
    D, width, C, n, k = 64, 128, 4, options.get("depth", 1), options.get("motifs", 1)
    shapes = k * 6 * 4 if tokens != "value" else 0
    values = 6 * sum(options.get("levels", [1, 2, 4])) if tokens != "shape" else 0
    rule = {"scalar": 2 * 8, "svp": 1}[options.get("pesa", "scalar")] if prior in ("both", "attention") else 0
    expected = (9 * D + D if shapes else 0) + (3 * D + D if values else 0)
    expected += (3 + C * (prior in ("both", "encoding"))) * D + D
    expected += n * (4 * (D**2 + D) + rule + 2 * D * width + width + D + 4 * D) + (shapes + values) * D * C + C
    assert sum(p.numel() for p in net.parameters()) == expected


def test_racket_sports_has_the_tokens_and_parameters_of_the_specification():
    with torch.device("meta"):
        each = {tokens: VSFormer(30, 6, 4, tokens=tokens) for tokens in ("both", "value", "shape")}
    assert {tokens: len(net.variate) for tokens, net in each.items()} == {"both": 66, "value": 42, "shape": 24}
    encoder = 4 * (64**2 + 64) + 16 + 2 * 64 * 128 + 128 + 64 + 256
    head = 66 * 64 * 4 + 4
    assert sum(p.numel() for p in each["both"].parameters()) == 640 + 256 + 512 + encoder + head == 51796


def test_it_builds_and_runs_on_the_meta_device_before_it_has_learnt_anything():
    with torch.device("meta"):
        net = VSFormer(30, 6, 4)
        assert net(torch.zeros(2, 30, 6), torch.full((2,), 30)).shape == (2, 4)


def test_at_the_start_attention_with_prior_is_plain_attention():
    plain, prior = model(prior="none", seed=3), model(prior="attention", seed=3)
    missing, extra = plain.load_state_dict(prior.state_dict(), strict=False)
    assert (missing, extra) == ([], ["layers.0.mixer.alike", "layers.0.mixer.telling"])
    assert isinstance(plain.layers[0].mixer, Attention) and not isinstance(plain.layers[0].mixer, PriorAttention)
    x, lengths, _ = cases(seed=5)
    assert_close(plain(x, lengths), prior(x, lengths))
    torch.nn.init.constant_(prior.layers[0].mixer.telling, 3.0)
    assert (plain(x, lengths) - prior(x, lengths)).abs().max() > 1e-3


def test_attention_with_prior_is_softmax_with_the_two_biases_of_a_head():
    torch.manual_seed(0)
    mixer, x = PriorAttention(8, heads=2), torch.randn(3, 5, 8)
    rows, tells = F.normalize(torch.rand(5, 3), dim=1), torch.rand(5)
    mixer.alike.data, mixer.telling.data = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 3.0])
    q, k, v = (part(x).view(3, 5, 2, 4).transpose(1, 2) for part in (mixer.q, mixer.k, mixer.v))
    cosine = F.cosine_similarity(rows[:, None], rows, dim=-1)
    scores = q @ k.mT / 2 + torch.stack((0.5 * cosine + 2 * tells, -cosine + 3 * tells))
    weights = scores.softmax(-1)
    assert_close(mixer.weights(x, rows, tells), weights)
    assert_close(mixer(x, rows, tells), mixer.o((weights @ v).transpose(1, 2).flatten(2)))


def test_attention_by_overlap_starts_as_the_average_and_is_a_softmax_of_weighted_softmax():
    torch.manual_seed(0)
    mixer, x, overlap = OverlapAttention(8, heads=2), torch.randn(3, 5, 8), torch.rand(3, 5, 5)
    assert_close(mixer.weights(x, overlap), torch.full((3, 2, 5, 5), 0.2))
    mixer.scale.data = torch.tensor(4.0)
    plain = Attention.weights(mixer, x)
    weights = (plain * 4.0 * 1.5 ** overlap[:, None]).softmax(-1)
    assert_close(mixer.weights(x, overlap), weights)
    v = mixer.v(x).view(3, 5, 2, 4).transpose(1, 2)
    assert_close(mixer(x, overlap), mixer.o((weights @ v).transpose(1, 2).flatten(2)))


def test_tokens_overlap_only_if_they_are_of_different_variates_and_share_time():
    net = model(tokens="value", pesa="svp", levels=[2])  # halves of variate 0, halves of variate 1
    x, lengths, _ = cases(2)
    (overlap,) = net._given(net.layers[0].mixer, net.features(x, lengths).spans)
    half = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    assert_close(overlap[0], torch.cat([torch.cat([0 * half, half], 1), torch.cat([half, 0 * half], 1)]))


def test_time_variate_and_prior_stand_in_the_encoding_of_a_token():
    net, (x, lengths, _) = model(), cases()
    tokens = net.features(x, lengths)
    place = torch.cat((tokens.spans[0], net.variate[:, None].float(), net.prior), 1)  # two variates: 0 and 1
    parts = torch.cat((net.shape(tokens.matches[0]), net.value(tokens.statistics[0])))
    assert_close(net.embed(tokens)[0], parts + net.encoding(place))


def test_a_case_that_holds_a_prototype_matches_it_where_it_stands():
    net, (x, lengths, _) = model(tokens="shape"), cases()
    spans = (net.features(x, lengths).spans * 20).round().long()
    matches = net.features(x, lengths).matches
    for s, shapelet in enumerate(net.shapelets()):
        assert spans[shapelet.case, s].tolist() == [shapelet.start, shapelet.end]
        assert_close(matches[shapelet.case, s], net.prototypes[s])


def test_what_is_discovered_depends_on_the_training_cases_alone():
    net, data = model(), cases()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second = net.discover(*data), net.discover(*data)
    assert torch.equal(state, torch.get_rng_state())
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    other = net.discover(*cases(seed=9))
    assert not torch.equal(first["prior"], other["prior"])
    assert net.discovery == model(prior="none").discovery != model(motifs=2).discovery


def test_a_checkpoint_restores_what_was_adopted():
    net, (x, lengths, _) = model(), cases(seed=4)
    fresh = VSFormer(20, 2, 3, **SMALL)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh.eval()(x, lengths), net(x, lengths))
    assert fresh.shapelets() == net.shapelets()


def test_what_was_discovered_with_other_settings_is_refused():
    with pytest.raises(ValueError, match=r"prototypes is \(12, 6\), this model takes \(6, 6\).* other settings"):
        model().adopt(model(motifs=2).discover(*cases()))


def test_steps_after_a_cases_end_do_not_count():
    x, lengths, y = cases()
    lengths = lengths - torch.arange(12)
    x = x * (torch.arange(20)[:, None] < lengths[:, None, None])
    net = model((x, lengths, y))
    longer = VSFormer(26, 2, 3, **SMALL, lengths=[4 / 26, 6 / 26]).eval()
    padded = F.pad(x, (0, 0, 0, 6))
    ours, theirs = net.discover(x, lengths, y), longer.discover(padded, lengths, y)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key != "prior")
    assert_close(ours["prior"], theirs["prior"])
    longer.adopt(theirs)
    short = lengths.clone()
    assert_close(net.features(x, short).matches, longer.features(padded, short).matches)
    assert_close(net.features(x, short).statistics, longer.features(padded, short).statistics)
    assert_close(net.features(x, short).spans * 20, longer.features(padded, short).spans * 26)


def test_logits_of_a_case_do_not_depend_on_its_batch_in_evaluation():
    net, (x, lengths, _) = model(), cases()
    assert_close(net(x, lengths)[3:4], net(x[3:4], lengths[3:4]), rtol=1e-4, atol=1e-5)
    assert_close(net(x), net(x, lengths))


def test_attributions_are_gradient_times_input_of_the_predicted_class():
    net, (x, lengths, _) = model().train(), cases(4)
    told = net.attributions(x, lengths)
    assert net.training
    with torch.inference_mode():
        assert torch.equal(net.attributions(x, lengths).score, told.score)
    net.eval()
    assert_close(told.label, net(x, lengths).argmax(1))
    tokens = net.features(x, lengths)
    h = net.embed(tokens).detach()
    logit = net.classify(h, tokens.spans)[0, told.label[0]]
    nudged = h.clone()
    nudged[0, 5] *= 1 + 1e-2
    slope = (net.classify(nudged, tokens.spans)[0, told.label[0]] - logit) / 1e-2
    assert slope.item() == pytest.approx(told.score[0, 5].item(), rel=0.1, abs=1e-3)
    assert told.score.shape == (4, 20) and told.prior.shape == (20, 3)
    assert told.shape.tolist() == [True] * 6 + [False] * 14
    assert told.spans[0, 6].tolist() == [0, 20] and told.variate[6:].tolist() == [0] * 7 + [1] * 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": "all"}, "tokens='all' is unknown: choose from both, shape, value"),
        ({"prior": "yes"}, "prior='yes' is unknown: choose from both, encoding, attention, none"),
        ({"pesa": "plain"}, "pesa='plain' is unknown: choose from scalar, svp"),
        ({"length": 3}, "length=3 must be a whole number of at least 4"),
        ({"classes": 1}, "classes=1 must be a whole number of at least 2"),
        ({"motifs": 0}, "motifs=0 must be a whole number"),
        ({"lengths": [0.1, 1.5]}, r"lengths=\[0.1, 1.5\] must be shares of the series in \(0, 1\]"),
        ({"lengths": []}, r"lengths=\[\] must be shares"),
        ({"levels": [1, 21]}, r"levels=\[1, 21\] must be numbers of intervals from 1 to the 20 steps"),
        ({"motifs": 900}, r"motifs=900 and levels=\[1, 2, 4\] make 5414 tokens .*: at most 4096, choose fewer motifs"),
        ({"heads": 5}, "d_model=16 is not divisible by heads=5"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        VSFormer(**({"length": 20, "variates": 2, "classes": 3} | SMALL | change))


def test_a_batch_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="x has 19 steps and 2 variates, this model takes 20 and 2"):
        model()(torch.zeros(1, 19, 2))
