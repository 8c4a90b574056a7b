"""The figures of what tokens say: the loudest of each case at its place, and the prior."""

import matplotlib.pyplot as plt
import pytest
import torch

from models.vsformer import VSFormer
from tasks.ts_classification import tokens


@pytest.fixture
def told():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 20, 2, generator=rng).cumsum(1), torch.arange(6) % 2
    net = VSFormer(20, 2, 2, d_model=16, heads=2, d_ff=16)
    net.adopt(net.discover(x, torch.full((6,), 20), y))
    return net.attributions(x[:2]), list(x[:2])


def test_each_case_shows_its_three_loudest_tokens_where_they_stand(told):
    told, values = told
    figures = dict(tokens.draw(told, values, ["calm", "storm"], ["wind", "rain"]))
    panels = figures["tokens"].axes
    assert len(panels) == 2 * 3
    for case in range(2):
        assert panels[3 * case].get_ylabel() == f"taken for {['calm', 'storm'][told.label[case]]}"
        for rank, token in enumerate(told.score[case].abs().argsort(descending=True)[:3].tolist()):
            panel, (start, stop) = panels[3 * case + rank], told.spans[case, token].tolist()
            kind, variate = ["value", "shape"][int(told.shape[token])], ["wind", "rain"][told.variate[token]]
            assert panel.get_title() == f"{kind} of {variate}: {float(told.score[case, token]):+.2f}"
            if told.shape[token]:
                assert panel.lines[1].get_xdata().tolist() == list(range(start, stop))
            else:
                assert panel.patches[0].get_extents().width > 0 and panel.patches[0].get_x() == start - 0.5
    plt.close("all")


def test_the_prior_is_drawn_class_by_class_with_tokens_of_shape_first(told):
    figure = dict(tokens.draw(*told, ["calm", "storm"], ["wind", "rain"]))["prior"]
    image = figure.axes[0].images[0].get_array()
    assert torch.equal(torch.as_tensor(image.data), told[0].prior.T)
    assert figure.axes[0].get_xlabel() == "token (4 of shape, then 14 of value)"
    plt.close("all")
