"""The encoder over time steps: counts, padding, refusals."""

import pytest
import torch

from models.series_encoder import SeriesClassifier, SeriesEncoder

L, N, C, D, F_, DEPTH = 12, 3, 4, 16, 32, 2
SIZE = {"d_model": D, "d_ff": F_, "depth": DEPTH, "heads": 4}


def encoder_parameters():
    block = 4 * (D * D + D) + 2 * D * F_ + F_ + D + 4 * D
    return 3 * N * D + DEPTH * block + 2 * D


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameters_follow_the_formula():
    assert count(SeriesEncoder(L, L, N, **SIZE)) == encoder_parameters() + D * N + N
    assert count(SeriesClassifier(L, N, C, **SIZE)) == encoder_parameters() + L * D * C + C


def test_a_window_comes_back_with_its_own_shape_and_scale():
    x = torch.randn(2, L, N) * 50 + 1000
    y = SeriesEncoder(L, L, N, **SIZE, use_norm=True).eval()(x)
    assert y.shape == x.shape and (y.mean(1) - x.mean(1)).abs().max() < 200


def test_what_stands_after_the_end_of_a_series_reaches_the_classes_through_the_encoder_only():
    model = SeriesClassifier(L, N, C, **SIZE).eval()
    x = torch.randn(2, L, N)
    x[1, 7:] = 0
    lengths = torch.tensor([L, 7])
    seen = {}
    model.head.register_forward_pre_hook(lambda _, args: seen.update(flat=args[0]))
    model(x, lengths)
    tokens = seen["flat"].unflatten(1, (L, D))
    assert (tokens[1, 7:] == 0).all() and (tokens[0] != 0).any(-1).all()


def test_a_shorter_batch_is_classified_like_one_padded_to_the_full_length():
    model = SeriesClassifier(L, N, C, **SIZE).eval()
    assert model(torch.randn(3, L - 4, N)).shape == (3, C)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SeriesEncoder(L, 6, N, **SIZE), ["horizon=6", "lookback=12", "data.horizon"]),
        (lambda: SeriesClassifier(L, N, 1, **SIZE), ["classes=1"]),
        (lambda: SeriesClassifier(L, N, C, d_model=10, heads=4), ["d_model=10", "heads=4"]),
        (lambda: SeriesEncoder(L, L, N, **SIZE)(torch.randn(1, L, N + 1)), ["variates=3"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(build, words):
    with pytest.raises(ValueError) as error:
        build()
    assert all(word in str(error.value) for word in words)
