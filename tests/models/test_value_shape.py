"""Motifs, best matches, interval statistics and class priors, each by hand on small series."""

import logging

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models import value_shape
from models.vsformer import VSFormer


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def motifs(x, labels, count=1, sizes=(5,), lengths=None):
    lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
    return value_shape.find_motifs(x, lengths, labels, int(labels.max()) + 1, sizes, count)


def planted():
    """Two classes of three series; in class 1, variate 1, cases 4 and 5 share a shape at steps 3 and 9."""
    x = noise(6, 16, 2)
    x[5, 9:14, 1] = 2 * x[4, 3:8, 1] + 1
    return x, torch.tensor([0, 0, 0, 1, 1, 1])


def test_the_motif_of_a_class_is_the_shape_that_recurs_in_its_series():
    found = motifs(*planted())
    assert [(motif.label, motif.variate) for motif in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found[3][:3] in [(4, 3, 5), (5, 9, 5)]


def test_a_shape_that_recurs_in_another_class_only_is_no_motif():
    x, _ = planted()
    found = motifs(x, torch.tensor([0, 0, 0, 0, 0, 1]).roll(1))  # case 0 alone is class 1
    assert found[1][:3] in [(4, 3, 5), (5, 9, 5)]
    apart = motifs(x, torch.tensor([0, 0, 1, 1, 0, 1]))  # cases 4 and 5 in different classes
    assert apart[1][:3] not in [(4, 3, 5), (5, 9, 5)] and apart[3][:3] not in [(4, 3, 5), (5, 9, 5)]


def test_further_motifs_do_not_overlap_the_better_ones_of_their_series():
    found = motifs(*planted(), count=4)
    assert len(found) == 2 * 2 * 4
    for i, one in enumerate(found):
        for other in found[i - i % 4 : i]:
            assert one.case != other.case or abs(one.start - other.start) >= 5


def test_lengths_compete_by_distance_over_the_root_of_the_length():
    x, labels = planted()
    x[2, 2:11, 0] = x[0, 5:14, 0]
    found = motifs(x, labels, sizes=(5, 9))
    assert found[0].length == 5  # no part of an exact copy is worse than the whole, and the first is taken
    assert motifs(x, labels, sizes=(9,))[0][:3] in [(0, 5, 9), (2, 2, 9)]


def test_of_shapes_that_recur_exactly_the_widest_is_taken_whatever_the_rounding():
    x, labels = noise(4, 20, 1), torch.tensor([0, 0, 1, 1])
    x[1, 1:6], x[1, 12:17] = x[0, 2:7], x[0, 10:15] * 4  # exact twins of other heights
    x[0, 10:15] *= 4
    for scale in (1.0, 1.001, 0.7):
        found = motifs(scale * x, labels)[0]
        assert (found.case, found.start) in [(0, 10), (1, 12)]


def test_windows_beyond_a_series_end_are_never_motifs():
    x, labels = planted()
    lengths = torch.tensor([16, 16, 9, 8, 7, 16])
    x = x * (torch.arange(16)[:, None] < lengths[:, None, None])
    for motif in motifs(x, labels, count=3, lengths=lengths):
        assert motif.start + motif.length <= lengths[motif.case]


def test_flat_windows_are_taken_only_where_nothing_else_is_left():
    x, labels = planted()
    x[:3, :9, 0] = 1.0
    assert motifs(x, labels)[0].start > 4
    x[:3, :, 0] = 1.0
    assert motifs(x, labels)[0].variate == 0


def test_a_class_of_one_series_gets_its_widest_window_and_a_warning(caplog):
    x = noise(4, 16, 1)
    x[3, 6:11] *= 10
    with caplog.at_level(logging.WARNING):
        found = motifs(x, torch.tensor([0, 0, 0, 1]))
    spread = x[3, :, 0].unfold(0, 5, 1).std(-1)
    assert found[1][:3] == (3, int(spread.argmax()), 5)
    assert "class 1 has one training series" in caplog.text


def test_a_series_shorter_than_a_prototype_is_its_own_match_and_never_near():
    x, lengths = noise(2, 12, 1), torch.tensor([12, 5])
    x[1, 5:] = 0
    prototype = x[0, 3:10, 0][None]
    matches, spans, distances = value_shape.best_matches(x, lengths, prototype, torch.tensor([[7, 0, 0, 12]]))
    assert spans[:, 0].tolist() == [[3, 10], [0, 5]]
    assert_close(matches[0, 0], prototype[0])
    assert_close(matches[1, 0], torch.cat([x[1, :5, 0], torch.zeros(2)]))
    assert distances[0, 0] == 0 and distances[1, 0] == torch.inf


def test_intervals_cut_the_true_length_of_every_series():
    cut = value_shape.intervals(torch.tensor([8, 7]), (1, 2, 4))
    assert cut[0].tolist() == [[0, 8], [0, 4], [4, 8], [0, 2], [2, 4], [4, 6], [6, 8]]
    assert cut[1].tolist() == [[0, 7], [0, 3], [3, 7], [0, 1], [1, 3], [3, 5], [5, 7]]


def test_statistics_are_those_of_numpy_on_every_interval():
    x, lengths = noise(3, 11, 2), torch.tensor([11, 9, 7])
    x = x * (torch.arange(11)[:, None] < lengths[:, None, None])
    cut = value_shape.intervals(lengths, (1, 3))
    told = value_shape.interval_statistics(x, cut).unflatten(1, (2, 4))
    for case in range(3):
        for variate in range(2):
            for i, (start, stop) in enumerate(cut[case].tolist()):
                part = x[case, start:stop, variate].numpy()
                slope = np.polyfit(np.arange(stop - start), part, 1)[0] * (stop - start - 1)
                expected = [part.mean(), part.std(), slope]
                assert told[case, variate, i].tolist() == pytest.approx(expected, abs=1e-4)


def test_an_interval_of_one_step_has_neither_deviation_nor_slope():
    told = value_shape.interval_statistics(noise(1, 4, 1), value_shape.intervals(torch.tensor([4]), (4,)))
    assert told.isfinite().all() and (told[..., 1:] == 0).all()


def test_the_prior_of_a_prototype_is_the_gain_for_its_own_class():
    distances = torch.tensor([[0.1, 0.3], [0.2, 0.1], [0.9, 0.2], [0.8, 0.4]])
    labels = torch.tensor([0, 0, 1, 1])
    prior = value_shape.shape_prior(distances, labels, torch.tensor([0, 1]), 2)
    assert_close(prior[0], torch.tensor([1.0, 0.0]))
    assert prior[1, 0] == 0 and 0 < prior[1, 1] < 0.5


def test_the_prior_of_a_value_token_is_the_better_of_mean_and_deviation_for_every_class():
    statistics = torch.zeros(4, 2, 3)
    statistics[:, 0, 0] = torch.tensor([0.0, 1.0, 5.0, 6.0])  # the mean of token 0 tells the classes apart
    statistics[:, 1, 2] = torch.tensor([0.0, 1.0, 5.0, 6.0])  # of token 1 only the slope does: it does not count
    prior = value_shape.value_prior(statistics, torch.tensor([0, 0, 1, 1]), 2)
    assert_close(prior, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_each_block_of_the_prior_is_over_its_own_maximum():
    x, labels = planted()
    net = VSFormer(16, 2, 2)
    prior = net.discover(x, torch.full((6,), 16), labels)["prior"]
    assert prior[:4].max() == prior[4:].max() == 1.0 and (prior >= 0).all()


def test_a_prior_of_all_zeros_stays_zero_with_a_warning(caplog):
    x = noise(1, 8, 1).expand(4, 8, 1)  # all cases alike
    net = VSFormer(8, 1, 2, tokens="value")
    with caplog.at_level(logging.WARNING):
        prior = net.discover(x, torch.full((4,), 8), torch.tensor([0, 1, 0, 1]))["prior"]
    assert (prior == 0).all()
    assert "no value token tells the classes apart" in caplog.text


def changed(**values):
    x, labels = planted()
    return {"x": x, "lengths": torch.full((6,), 16), "labels": labels} | values


def with_nan():
    x, _ = planted()
    x[3, 7, 1] = torch.nan
    return x


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(labels=torch.tensor([0, 0, 0, 1, 1, 5])), "labels 0, 1, 5 must be whole numbers from 0 to 1"),
        (changed(labels=torch.tensor([0, 0, 0, 1, 1, 1.5])), "labels 0.0, 1.0, 1.5 must be whole numbers"),
        (changed(labels=torch.zeros(6, dtype=torch.int64)), "class 1 has 0 training series"),
        (changed(x=with_nan()), "case 3, variate 1 has a value that is not finite"),
        (changed(lengths=torch.tensor([16, 16, 3, 16, 16, 16])), "case 2 has 3 steps, at least 4 are needed"),
    ],
    ids=["unknown_label", "label_not_whole", "empty_class", "nan", "short"],
)
def test_training_cases_that_cannot_be_learnt_from_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        VSFormer(16, 2, 2).discover(data["x"], data["lengths"], data["labels"])


def test_more_motifs_than_windows_are_refused():
    with pytest.raises(ValueError, match="motifs=40 is more than the 36 windows of class 0"):
        motifs(*planted(), count=40)


@pytest.mark.parametrize(("length", "sizes"), [(8, (4,)), (4, (4,)), (20, (4, 6)), (30, (4, 9)), (144, (22, 43))])
def test_prototypes_are_shares_of_the_series_and_at_least_four_steps(length, sizes):
    assert VSFormer(length, 2, 2).sizes == sizes
