"""mode=bench: right first, then how fast; on this machine's device."""

import json

import pytest
import torch

import kernels
from engine.bench.ops import peak_bytes
from kernels import registry, tuning


@pytest.fixture
def small(monkeypatch, tmp_path):
    """One small shape for attention, and no answers of before."""
    from kernels import cases

    module = cases.of("attention")
    monkeypatch.setattr(module, "CPU", [module.CHECK])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "_known", None)
    yield
    kernels.configure({})


def rows(folder):
    return json.loads((folder / "bench.json").read_text())["rows"]


def test_an_op_is_timed_by_every_backend_and_beside_a_public_one(runner, tmp_path, small):
    outcome = runner("mode=bench", "bench.what=attention", "bench.repeats=3", "trainer=cpu", f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.err
    found = {row["backend"]: row for row in rows(tmp_path / "out")}
    assert {"reference", "torch", "SDPA flash"} <= set(found) and "triton" not in found
    for row in found.values():
        assert row["forward_ms"] > 0 and row["training_ms"] > 0 and row["memory_mb"] > 0 and row["tflops"] > 0
    assert found["torch"]["right"] is True and found["SDPA flash"]["right"] is None
    expected = found["SDPA flash"]["training_ms"] / found["torch"]["training_ms"]
    assert found["torch"]["speedup"] == pytest.approx(expected) and found["torch"]["rival"] == "SDPA flash"
    made = json.loads((tmp_path / "out/bench.json").read_text())
    assert made["ceiling"]["tflops"] > 0 and made["ceiling"]["versions"]["torch"] == torch.__version__
    assert "| attention |" in (tmp_path / "out/bench.md").read_text()
    assert (tmp_path / "out/bench.png").stat().st_size > 5000


def test_a_backend_that_is_wrong_gets_no_time(runner, tmp_path, small, monkeypatch):
    right = registry.backends("attention")[0]["torch"]
    twice = registry.Backend("torch", lambda *a, **o: 2 * right.function(*a, **o), right.supports, "", 10)
    monkeypatch.setitem(registry.backends("attention")[0], "torch", twice)
    outcome = runner("mode=bench", "bench.what=attention", "bench.repeats=1", "trainer=cpu", f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.err
    wrong = next(row for row in rows(tmp_path / "out") if row["backend"] == "torch")
    assert wrong["right"] is False and wrong["forward_ms"] is None
    assert "NO" in outcome.out


def test_a_backend_that_is_wrong_on_a_timed_shape_only_gets_no_time(runner, tmp_path, small, monkeypatch):
    from kernels.attention import _cases

    right = registry.backends("attention")[0]["torch"]

    def wrong_when_long(q, *others, **options):
        return right.function(q, *others, **options) * (2 if q.shape[2] > 40 else 1)

    monkeypatch.setattr(_cases, "CPU", [_cases.case("long", 1, 1, 64, 8)])
    backend = registry.Backend("torch", wrong_when_long, right.supports, "", 10)
    monkeypatch.setitem(registry.backends("attention")[0], "torch", backend)
    runner("mode=bench", "bench.what=attention", "bench.repeats=1", "trainer=cpu", f"output={tmp_path}/out")
    wrong = next(row for row in rows(tmp_path / "out") if row["backend"] == "torch")
    assert wrong["right"] is False and wrong["forward_ms"] is None


def test_kernel_chooses_what_is_timed(runner, tmp_path, small):
    runner(
        "mode=bench",
        "bench.what=attention",
        "kernel=reference",
        "bench.repeats=1",
        "trainer=cpu",
        f"output={tmp_path}/out",
    )
    backends = {row["backend"] for row in rows(tmp_path / "out")}
    assert "reference" in backends and "torch" not in backends


def test_a_whole_model_is_timed_by_kernel_and_batch(runner, tmp_path):
    model = ("model=itransformer", "model.d_model=16", "model.heads=2", "model.depth=1")
    arguments = ("mode=bench", "bench.what=model", "bench.batch=[2,4]", "bench.repeats=1", "trainer=cpu")
    outcome = runner(*arguments, *model, f"output={tmp_path}/out")
    assert outcome.code == 0, outcome.err
    found = [(row["shape"], row["backend"]) for row in rows(tmp_path / "out")]
    assert found == [(f"batch {b}", k) for b in (2, 4) for k in ("reference", "torch")]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("bench.what=atention", "bench.what=atention: no such op; did you mean attention"),
        ("bench.shapes=huge", "bench.shapes=huge:"),
        ("bench.dtype=float8", "bench.dtype=float8:"),
        ("bench.repeats=0", "bench.repeats=0: expected a whole number, 1 or more"),
        ("output=/proc/nowhere", "output=/proc/nowhere:"),
    ],
    ids=["op", "shapes", "dtype", "repeats", "output"],
)
def test_what_cannot_be_timed_is_said_in_one_line(runner, argument, message):
    outcome = runner("mode=bench", argument, "trainer=cpu")
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and message in outcome.err


def test_peak_memory_is_what_is_held_at_once():
    def action():
        y = torch.ones(1024, 1024) * 2
        z = y + 1
        del y
        return z * z

    assert peak_bytes(action, torch.device("cpu")) == pytest.approx(8 * 2**20, rel=1e-3)
