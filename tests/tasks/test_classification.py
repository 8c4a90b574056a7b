"""The classification base around real models: loss, scores, what is shown to models before training."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from models.majority import MajorityClass
from models.series_encoder import SeriesClassifier
from tasks.classification import Classification, Scores, draw_confusion

B, L, N, C = 6, 5, 3, 4


class SeriesTask(Classification):
    def inputs(self, batch):
        return batch["x"], batch["lengths"]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, L, N, generator=generator)
    return {"x": x, "lengths": torch.full((B,), L), "y": torch.tensor([0, 1, 1, 1, 2, 3])}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SeriesClassifier(L, N, C, d_model=8, depth=1, heads=2, d_ff=8).eval()


def test_the_training_loss_is_cross_entropy_with_the_smoothing_asked_for(model, batch):
    logits = model(batch["x"], batch["lengths"])
    assert torch.equal(SeriesTask(model).training_step(batch, 0), F.cross_entropy(logits, batch["y"]))
    smooth = SeriesTask(model, label_smoothing=0.1).training_step(batch, 0)
    assert torch.equal(smooth, F.cross_entropy(logits, batch["y"], label_smoothing=0.1))
    with pytest.raises(ValueError, match=r"label_smoothing=1\.0"):
        SeriesTask(model, label_smoothing=1.0)


def test_scores_over_uneven_batches_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(50, 7, generator=generator), torch.randint(0, 7, (50,), generator=generator)
    scores = Scores(7)
    for part in (slice(0, 3), slice(3, 40), slice(40, 50)):
        scores.update(logits[part], labels[part])
    found = {name: float(value) for name, value in scores.compute().items()}
    guess = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, guess))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, guess))
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, guess, average="macro"))
    assert found["top5_accuracy"] == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5))
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, labels)))
    assert torch.equal(scores.confusion.compute(), torch.tensor(metrics.confusion_matrix(labels, guess)))


def test_calibration_error_is_zero_for_right_confidence_and_large_for_false_confidence():
    sure = torch.tensor([[20.0, 0.0]]).expand(10, 2)
    right, wrong = Scores(2), Scores(2)
    right.update(sure, torch.zeros(10, dtype=torch.long))
    wrong.update(sure, torch.ones(10, dtype=torch.long))
    assert float(right.compute()["ece"]) < 1e-6 and float(wrong.compute()["ece"]) > 0.99


def test_models_and_baselines_that_look_at_the_data_see_the_training_split_before_training(
    model, batch, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Train(dict):
        def __len__(self):
            return B

        def __getitem__(self, index):
            return {key: value[index] for key, value in batch.items()}

    task = SeriesTask(model, baselines={"majority": MajorityClass(C)})
    task.prepare(SimpleNamespace(train=Train()))
    majority = task.baselines["majority"]
    assert majority.counts.tolist() == [1, 3, 1, 1]
    assert majority(batch["x"]).argmax(1).tolist() == [1] * B
    assert torch.allclose(majority(batch["x"])[0].exp(), torch.tensor([1, 3, 1, 1]) / 6)


def test_the_confusion_figure_names_every_class_and_writes_the_counts():
    figure = draw_confusion(torch.tensor([[3, 1], [0, 2]]), ["walk", "run"])
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == ["3", "1", "2"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["walk", "run"]
