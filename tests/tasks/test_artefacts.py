"""The cache of what is found in training data: when it is used, and when not."""

import pytest
import torch

from tasks import artefacts


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "runner" / "artefacts"


def look(data, calls, **settings):
    def make():
        calls.append(settings)
        return {"sum": data.sum()}

    return artefacts.cached("Model", settings, [data], make)


def test_the_same_data_and_settings_are_looked_at_once():
    calls, data = [], torch.arange(4.0)
    assert look(data, calls, k=1)["sum"] == look(data.clone(), calls, k=1)["sum"] == 6
    assert len(calls) == 1


@pytest.mark.parametrize("other", [torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.arange(4.0)[None], torch.arange(4)])
def test_other_values_shapes_or_types_are_other_data(other):
    calls = []
    look(torch.arange(4.0), calls, k=1)
    look(other, calls, k=1)
    assert len(calls) == 2


def test_other_settings_or_other_code_find_anew(monkeypatch):
    calls, data = [], torch.arange(4.0)
    look(data, calls, k=1)
    look(data, calls, k=2)
    monkeypatch.setattr(artefacts, "code", lambda: "another version")
    look(data, calls, k=2)
    assert len(calls) == 3


def test_a_file_that_was_made_from_something_else_is_refused(folder):
    calls = []
    look(torch.arange(4.0), calls, k=1)
    (first,) = folder.iterdir()
    look(torch.arange(5.0), calls, k=1)
    (second,) = set(folder.iterdir()) - {first}
    first.rename(second)
    with pytest.raises(ValueError, match="made from other data"):
        look(torch.arange(5.0), calls, k=1)


def test_a_torn_file_is_made_anew(folder):
    calls, data = [], torch.arange(4.0)
    look(data, calls)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    assert look(data, calls)["sum"] == 6
    assert len(calls) == 2 and look(data, calls)["sum"] == 6 and len(calls) == 2
