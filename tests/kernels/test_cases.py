"""The cases of every op: what self-checks and mode=bench rely on."""

import pytest
import torch
from compare import DEVICE

import kernels
from kernels import cases, registry, tuning

BACKENDS = [(op, name) for op in registry.ops() for name in registry.backends(op)[0] if name != "reference"]


@pytest.mark.parametrize("op", registry.ops())
def test_every_op_has_cases_for_its_check_laptops_and_papers(op):
    module = cases.of(op)
    everything = [module.CHECK, *module.CPU, *module.GPU]
    assert module.CPU and module.GPU and len({case.label for case in everything}) == len(everything)
    assert all(case.flops > 0 or case.bytes > 0 for case in everything)
    assert all(callable(rival) for rival in module.BASELINES.values())


@pytest.mark.parametrize(("op", "backend"), BACKENDS, ids=["-".join(pair) for pair in BACKENDS])
def test_every_backend_passes_its_self_check(op, backend):
    found = registry.backends(op)[0][backend]
    device = torch.device(DEVICE)
    if not found.supports(device, torch.float32):
        pytest.skip(f"needs {found.requires}")
    args, options = cases.of(op).CHECK.make(device, torch.float32)
    if found.fits and found.fits(*args, **options):
        pytest.skip(f"does not do {found.fits(*args, **options)}")
    assert tuning.check(op, found.function, device, torch.float32) == (True, True)


@pytest.mark.parametrize("op", registry.ops())
def test_the_laptop_cases_run(op):
    for case in cases.of(op).CPU:
        args, options = case.make(torch.device("cpu"), torch.float32)
        with torch.no_grad():
            made = getattr(kernels, op)(*args, **options)
        first = made if isinstance(made, torch.Tensor) else made[0]
        assert first.isfinite().all(), case.label
