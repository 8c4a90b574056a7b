"""ROCKET and the nearest neighbour by dynamic time warping: equal to aeon's own classifiers, kept in tensors."""

import numpy as np
import pytest
import torch

from models.nearest_dtw import NearestDTW
from models.rocket import Rocket

pytest.importorskip("aeon", reason="the baselines need aeon: pip install aeon")

L, N, C = 20, 2, 3


@pytest.fixture(scope="module")
def cases():
    """Noisy waves of three frequencies: x (30, L, N), lengths, labels; the last ones are shorter."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(30) % C
    time = torch.arange(L)[None, :, None]
    x = torch.sin(time * (y[:, None, None] + 1) * 0.4) + 0.3 * torch.randn(30, L, N, generator=generator)
    lengths = torch.full((30,), L)
    lengths[-4:] = L - 3
    x[-4:, -3:] = 0
    return x, lengths, y


def fitted(model, cases):
    model.adopt(model.discover(*cases))
    return model


def test_rocket_decides_as_aeons_ridge_on_the_same_kernels(cases):
    from aeon.transformations.collection.convolution_based import Rocket as Transform
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, lengths, y = cases
    series = x.transpose(1, 2).numpy()
    pipeline = make_pipeline(
        Transform(50, normalise=False, random_state=3),
        StandardScaler(with_mean=False),
        RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)),
    ).fit(series, y.numpy())
    ours = fitted(Rocket(L, N, C, kernels=50, seed=3), cases)(x, lengths)
    torch.testing.assert_close(ours, torch.from_numpy(pipeline.decision_function(series)).float(), atol=1e-3, rtol=1e-3)


def test_normalised_rocket_does_not_see_the_level_of_a_series(cases):
    x, lengths, y = cases
    moved = torch.where(x == 0, x, 5 * x + 7)
    model = fitted(Rocket(L, N, C, kernels=50, normalise=True), (x[:26], lengths[:26], y[:26]))
    torch.testing.assert_close(model(x[:5], lengths[:5]), model(moved[:5], lengths[:5]), atol=1e-2, rtol=1e-2)


def test_of_two_classes_the_second_has_the_positive_value(cases):
    x, lengths, y = cases
    model = fitted(Rocket(L, N, 2, kernels=50), (x, lengths, y.clamp_max(1)))
    logits = model(x, lengths)
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    assert (logits.argmax(1) == y.clamp_max(1)).float().mean() > 0.9


def test_series_shorter_than_a_kernel_are_lengthened(cases):
    x, _, y = cases
    model = fitted(Rocket(6, N, C, kernels=20), (x[:, :6], torch.full((30,), 6), y))
    assert model(x[:, :6]).isfinite().all()


def warped(a, b, reach):
    """The least sum of squared distances over warping paths at most `reach` steps off the diagonal."""
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            if abs(i - j) <= reach:
                before = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
                cost[i + 1, j + 1] = before + np.square(a[i] - b[j]).sum()
    return cost[-1, -1]


@pytest.mark.parametrize("window", [None, 0.2])
def test_logits_are_minus_the_warped_distances_to_the_nearest_case_of_each_class(cases, window):
    x, lengths, y = cases
    logits = fitted(NearestDTW(L, N, C, window), (x[:9], lengths[:9], y[:9]))(x[20:23], lengths[20:23])
    for one, ours in zip(x[20:23].double().numpy(), logits, strict=True):
        distances = [warped(one, other, L * (window or 1)) for other in x[:9].double().numpy()]
        expected = [-min(distances[label::C]) for label in range(C)]
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_what_stands_after_a_cases_end_changes_no_distance(cases):
    x, lengths, y = cases
    model = fitted(NearestDTW(L, N, C), (x, lengths, y))
    disturbed = x.clone()
    disturbed[-4:, -3:] = 99
    torch.testing.assert_close(model(x, lengths), model(disturbed, lengths))
    assert (model(x, lengths).amax(1) == 0).all()  # every training case is its own nearest


def test_a_class_without_cases_is_never_the_nearest(cases):
    x, lengths, y = cases
    assert (fitted(NearestDTW(L, N, C + 1), (x, lengths, y))(x).argmax(1) < C).all()


@pytest.mark.parametrize("build", [lambda: Rocket(L, N, C, kernels=20), lambda: NearestDTW(L, N, C)])
def test_weights_load_into_a_fresh_model(cases, build):
    x, lengths, _ = cases
    trained, fresh = fitted(build(), cases), build()
    assert not list(trained.parameters())
    state = trained.state_dict()
    fresh.take_shapes(state)
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh(x, lengths), trained(x, lengths))


@pytest.mark.parametrize("build", [lambda: Rocket(L, N, C, kernels=20), lambda: NearestDTW(L, N, C)])
def test_looking_is_repeatable_and_leaves_the_random_numbers_and_the_model_alone(cases, build):
    model = build()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), model(cases[0])
    first, second = model.discover(*cases), build().discover(*cases)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    assert torch.equal(before[2], model(cases[0]))


@pytest.mark.parametrize("build", [lambda: Rocket(L, N, C), lambda: NearestDTW(L, N, C)])
def test_without_data_the_models_run_on_the_meta_device(build):
    with torch.device("meta"):
        assert build()(torch.empty(2, L, N)).shape == (2, C)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Rocket(L, N, 1), "classes=1"),
        (lambda: Rocket(L, N, C, kernels=0), "kernels=0"),
        (lambda: Rocket(L, N, C, normalise=1), "normalise=1"),
        (lambda: NearestDTW(L, N, C, window=2), "window=2"),
        (lambda: NearestDTW(0, N, C), "length=0"),
    ],
)
def test_wrong_arguments_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_missing_package_is_told_with_its_command(monkeypatch):
    monkeypatch.setattr("models.checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"model=rocket needs the package aeon, .*pip install aeon"):
        Rocket(L, N, C)
