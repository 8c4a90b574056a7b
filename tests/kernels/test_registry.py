"""Which backend computes an op, and what happens when the wanted one is not there."""

import importlib
import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import kernels
from kernels import registry


@pytest.fixture(autouse=True)
def fresh_registry():
    registry._warned.clear()
    kernels.configure({})
    yield
    kernels.configure({})


BOTH = ("attention", "selective_scan")


@pytest.fixture
def without_triton(monkeypatch):
    """As on a machine without a GPU, where Triton is not set to interpret its kernels."""
    monkeypatch.delitem(registry.backends("attention")[0], "triton", raising=False)
    monkeypatch.delitem(registry.backends("attention")[0], "flex", raising=False)


def test_auto_resolves_to_the_fast_torch_backends_on_a_cpu():
    few_patterns_first = {"subsequence_match": "direct"}
    assert kernels.choices("cpu") == dict.fromkeys(registry.ops(), "torch") | few_patterns_first


def test_configure_sets_each_op_and_puts_unnamed_ones_back_to_auto():
    kernels.configure({"attention": "reference", "selective_scan": "reference", "strict": False})
    assert kernels.choices("cpu", among=BOTH) == {"attention": "reference", "selective_scan": "reference"}
    kernels.configure({"selective_scan": "reference"})
    assert kernels.choices("cpu", among=BOTH) == {"attention": "torch", "selective_scan": "reference"}


def test_using_changes_the_backend_within_its_block_only_even_after_an_error():
    with pytest.raises(KeyError), kernels.using(attention="reference"):
        assert kernels.choices("cpu")["attention"] == "reference"
        raise KeyError
    assert kernels.choices("cpu")["attention"] == "torch"


def test_a_call_runs_the_chosen_backend(monkeypatch):
    x = torch.randn(1, 2, 3, 4)
    kernels.attention(x, x, x)  # a first choice, which must not stick
    calls = []
    stand_in = registry.Backend("reference", lambda *args, **options: calls.append(options), lambda *_: True, "", 0)
    monkeypatch.setitem(registry.backends("attention")[0], "reference", stand_in)
    with kernels.using(attention="reference"):
        kernels.attention(x, x, x, causal=True)
    assert calls[0]["causal"] is True


def test_the_first_call_of_an_op_finds_its_backends(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", {})
    registry.backends.cache_clear()
    x = torch.randn(1, 2, 3, 4)
    assert kernels.attention(x, x, x).shape == x.shape


def test_triton_without_a_gpu_falls_back_to_torch_with_one_warning(caplog, without_triton):
    kernels.configure({"attention": "triton"})
    x = torch.randn(1, 1, 2, 4)
    with caplog.at_level(logging.WARNING, logger="runner"):
        for _ in range(3):
            kernels.attention(x, x, x)
            kernels.attention(x.double(), x.double(), x.double())
    assert [record.message for record in caplog.records] == [
        "kernel.attention=triton: no such backend is available here; available are reference, torch;"
        " using torch instead"
    ]


def test_triton_without_a_gpu_is_an_error_with_a_remedy_under_strict(without_triton):
    with pytest.raises(ValueError, match=r"kernel.attention=triton.*available are reference, torch.*strict=false"):
        kernels.configure({"attention": "triton", "strict": True})


def test_a_backend_that_does_not_support_the_device_falls_back_or_is_refused_under_strict(monkeypatch, caplog):
    gpu_only = registry.Backend("triton", lambda: None, lambda device, _: device.type == "cuda", "a CUDA device", 20)
    monkeypatch.setitem(registry.backends("attention")[0], "triton", gpu_only)
    assert kernels.choices("cuda")["attention"] == "triton"
    assert kernels.choices("cpu")["attention"] == "torch"
    with kernels.using(attention="triton"), caplog.at_level(logging.WARNING, logger="runner"):
        assert kernels.choices("cpu")["attention"] == "torch"
    assert "kernel.attention=triton needs a CUDA device, not cpu" in caplog.text
    with (
        kernels.using(attention="triton", strict=True),
        pytest.raises(ValueError, match=r"needs a CUDA device.*set kernel.attention=torch"),
    ):
        kernels.choices("cpu")


def test_recording_gathers_the_ops_that_are_called_and_only_those():
    x = torch.randn(1, 1, 2, 4)
    with kernels.recording() as none:
        pass
    with kernels.recording() as called:
        kernels.attention(x, x, x)
    kernels.attention(x, x, x)
    assert none == set() and called == {"attention"}
    assert kernels.choices("cpu", among=called) == {"attention": "torch"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"atention": "torch"}, r"kernel.atention: there is no such op; the ops are attention, block_mass, "),
        (
            {"attention": "flash"},
            r"kernel.attention=flash: unknown backend; choose from auto, reference, torch, triton, flex",
        ),
        ({"strict": "yes"}, r"kernel.strict='yes' must be true or false"),
    ],
    ids=["op", "backend", "strict"],
)
def test_an_unknown_op_backend_or_switch_is_refused_by_configure_and_using(config, message):
    with pytest.raises(ValueError, match=message):
        kernels.configure(config)
    with pytest.raises(ValueError, match=message), kernels.using(**config):
        pass
    assert kernels.choices("cpu")["attention"] == "torch"  # a refused configuration changes nothing


def test_a_new_file_in_an_op_is_a_backend_and_one_that_cannot_be_imported_says_why(tmp_path, monkeypatch):
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "brisk.py").write_text(
        "PRIORITY = 5\nREQUIRES = 'nothing'\n"
        "def supports(device, dtype): return True\n"
        "def attention(*args, **options): return 'brisk'\n"
    )
    (tmp_path / "attention" / "needy.py").write_text("import a_package_that_is_not_there\n")
    package = importlib.import_module("kernels.attention")
    monkeypatch.setattr(package, "__path__", [str(tmp_path / "attention"), *package.__path__])
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    registry.backends.cache_clear()
    try:
        found, missing = registry.backends("attention")
        assert found["brisk"].function() == "brisk"
        assert "a_package_that_is_not_there" in missing["needy"]
    finally:
        registry.backends.cache_clear()


def test_every_kernel_config_names_every_op_and_is_accepted():
    files = sorted((Path(__file__).parents[2] / "conf" / "kernel").glob("*.yaml"))
    assert [file.stem for file in files] == ["auto", "reference", "torch", "triton"]
    for file in files:
        assert file.read_text().startswith("# ")
        config = OmegaConf.load(file)
        assert set(config) == {*registry.ops(), "measure", "strict"}
        kernels.configure(config)
