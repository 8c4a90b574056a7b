"""How `auto` decides: self-checks and timings, remembered per machine."""

import json
import logging

import pytest
import torch

import kernels
from kernels import registry, tuning


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No answers of before, none left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "_known", None)
    monkeypatch.setattr(tuning, "_passing", {})
    monkeypatch.setattr(registry, "_fastest", {})
    kernels.configure({})
    yield
    kernels.configure({})


def answers() -> dict:
    return json.loads(tuning.cache_file().read_text())


def stand_in(monkeypatch, function, priority=99, fits=None):
    """Makes `function` the attention backend that `auto` would like best."""
    backend = registry.Backend("eager", function, lambda *_: True, "", priority, fits)
    monkeypatch.setitem(registry.backends("attention")[0], "eager", backend)
    kernels.configure({})


def wrong(q, k, v, **options):
    return registry.backends("attention")[0]["reference"].function(q, k, v, **options) * 1.01


def test_a_backend_that_computes_something_else_is_never_chosen(monkeypatch, caplog):
    with caplog.at_level(logging.WARNING, logger="runner"):
        stand_in(monkeypatch, wrong)
        assert kernels.choices("cpu")["attention"] == "torch"
    assert "kernel.attention=eager fails its self-check on cpu with torch.float32" in caplog.text
    assert [value for key, value in answers().items() if " eager " in key] == [False]


def test_a_backend_whose_gradients_are_wrong_is_never_chosen(monkeypatch):
    def detached(q, k, v, **options):
        return registry.backends("attention")[0]["reference"].function(q, k, v.detach(), **options) + 0 * v.sum()

    stand_in(monkeypatch, detached)
    assert kernels.choices("cpu")["attention"] == "torch"


def test_a_right_one_is_chosen_and_checked_once_per_machine(monkeypatch):
    calls = []

    def right(q, k, v, **options):
        calls.append(q.shape)
        return registry.backends("attention")[0]["reference"].function(q, k, v, **options)

    stand_in(monkeypatch, right)
    assert kernels.choices("cpu")["attention"] == "eager" and calls
    calls.clear()
    monkeypatch.setattr(tuning, "_known", None)  # as a later process would begin
    kernels.configure({})
    assert kernels.choices("cpu")["attention"] == "eager" and not calls


def test_a_check_that_raises_is_made_again_by_the_next_process(monkeypatch):
    def broken(q, k, v, **options):
        raise torch.OutOfMemoryError("just now")

    stand_in(monkeypatch, broken)
    assert kernels.choices("cpu")["attention"] == "torch"
    assert not [key for key in answers() if " eager " in key]


def test_measuring_takes_the_faster_one_logs_it_once_and_remembers_it(monkeypatch, caplog):
    import time

    def slow(q, k, v, **options):
        time.sleep(0.02)
        return registry.backends("attention")[0]["reference"].function(q, k, v, **options)

    stand_in(monkeypatch, slow)
    x = torch.randn(1, 2, 8, 4)
    kernels.configure({"measure": True})
    with caplog.at_level(logging.INFO, logger="runner"):
        kernels.attention(x, x, x)
        kernels.attention(x, x, x)
    lines = [r.message for r in caplog.records if "takes" in r.message]
    assert len(lines) == 1 and "kernel.attention=auto takes torch for (1, 2, 8, 4) float32" in lines[0]
    assert "eager 2" in lines[0]  # its 20-odd milliseconds
    assert [value for key, value in answers().items() if key.startswith("time ")] == ["torch"]


def test_without_measuring_the_priority_decides(monkeypatch):
    seen = []

    def marked(q, k, v, **options):
        seen.append(1)
        return registry.backends("attention")[0]["reference"].function(q, k, v, **options)

    stand_in(monkeypatch, marked)
    x = torch.randn(1, 2, 8, 4)
    kernels.attention(x, x, x)
    seen.clear()
    kernels.attention(x, x, x)
    assert seen == [1]


def test_a_call_that_a_backend_cannot_do_goes_to_the_next_with_one_line(monkeypatch, caplog):
    def fits(q, k, v, **options):
        return "causal attention" if options["causal"] else ""

    stand_in(monkeypatch, registry.backends("attention")[0]["reference"].function, fits=fits)
    x = torch.randn(1, 2, 8, 4)
    kernels.configure({"attention": "eager"})
    with caplog.at_level(logging.WARNING, logger="runner"):
        for _ in range(2):
            kernels.attention(x, x, x, causal=True)
    expected = "kernel.attention=eager does not do causal attention; using torch for that"
    assert [r.message for r in caplog.records] == [expected]
    kernels.configure({"attention": "eager", "strict": True})
    with pytest.raises(ValueError, match=r"does not do causal attention; set kernel.attention=torch \(or auto\)"):
        kernels.attention(x, x, x, causal=True)


def test_an_unwritable_cache_only_costs_the_memory(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert tuning.remember("question", True) is True
    assert tuning.remembered("question") is True


def test_self_checks_draw_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    kernels.choices("cpu")
    assert torch.rand(4).equal(expected)


def test_without_gradients_only_the_forward_pass_is_timed_and_remembered_apart(monkeypatch):
    calls = []

    def counted(q, k, v, **options):
        calls.append(torch.is_grad_enabled())
        return registry.backends("attention")[0]["reference"].function(q, k, v, **options)

    stand_in(monkeypatch, counted)
    x = torch.randn(1, 2, 8, 4, requires_grad=True)
    kernels.configure({"measure": True})
    with torch.no_grad():
        kernels.attention(x, x, x)
    assert calls and not any(calls[1:])  # the first is the self-check
    kernels.attention(x, x, x)
    assert len([key for key in answers() if key.startswith("time ")]) == 2


def test_a_timing_for_which_memory_was_short_is_not_kept(monkeypatch):
    def large(q, k, v, **options):
        if q.shape[2] > 100:
            raise torch.OutOfMemoryError("just now")
        return registry.backends("attention")[0]["reference"].function(q, k, v, **options)

    stand_in(monkeypatch, large)
    x = torch.randn(1, 2, 128, 4)
    kernels.configure({"measure": True})
    assert kernels.attention(x, x, x).shape == x.shape
    assert not [key for key in answers() if key.startswith("time ")]
