"""What a run takes of its device: half precision, the layout in memory, fused optimizers."""

import copy
from pathlib import Path

import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.engine import placement
from densessl.pretrain.engine.changes import changes_of
from densessl.pretrain.engine.optimizers import FusedSGD, load_state
from densessl.pretrain.engine.placement import settled

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of a compute capability that the test names."""

    def of(*capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return GPU

    return of


def chosen(cfg):
    return cfg.AMP, cfg.CHANNELS_LAST


@pytest.mark.parametrize(
    "capability, expected",
    [((7, 0), ("off", "off")), ((8, 0), ("bf16", "on")), ((9, 0), ("bf16", "on"))],
)
def test_auto_is_bf16_and_channels_last_from_ampere_on(gpu, capability, expected):
    cfg = config.load("moco_v2")
    assert chosen(settled(cfg, gpu(*capability))) == expected
    assert chosen(settled(cfg, CPU)) == ("off", "off")
    assert chosen(cfg) == ("auto", "auto")


def test_what_is_named_stays(gpu):
    cfg = config.load("pixpro", ["CHANNELS_LAST", "False"])
    assert chosen(settled(cfg, gpu(9, 0))) == ("fp16", "off")


def test_a_resumed_run_keeps_its_precision_on_any_device(gpu):
    cfg = config.load("moco_v2")
    on_cpu, on_gpu = settled(cfg, CPU).dump(), settled(cfg, gpu(8, 0)).dump()
    assert chosen(settled(cfg, GPU, on_cpu)) == ("off", "on")
    assert chosen(settled(cfg, CPU, on_gpu)) == ("bf16", "off")
    assert chosen(settled(cfg, GPU, on_cpu, ["AMP"])) == ("bf16", "on")  # --change AMP


def test_with_several_gpus_the_oldest_decides(gpu, monkeypatch):
    monkeypatch.setattr(placement.distributed, "any_rank", lambda flag: True)  # another's vote
    assert chosen(settled(config.load("moco_v2"), gpu(9, 0))) == ("off", "off")


def test_a_run_of_an_older_version_goes_on():
    """Its checkpoint says AMP off, which was the default, and CHANNELS_LAST False."""
    old = settled(config.load("moco_v2"), CPU).dump().replace("LAST: 'off'", "LAST: false")
    state = {"config": old, "pretrain": {}, "iteration": 1}
    now = settled(config.load("moco_v2"), CPU, old)
    assert changes_of(Path("step.pth"), state, now, []) == []
    with pytest.raises(InputError, match="AMP: off -> bf16"):
        changes_of(Path("step.pth"), state, config.load("moco_v2", ["AMP", "bf16"]), [])


def weights():
    generator = torch.Generator().manual_seed(0)
    shapes = (8, 4, 3, 3), (4,), (6, 2)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def steps(optimizer, parameters, first, end):
    for step in range(first, end):
        generator = torch.Generator().manual_seed(step)
        for number, p in enumerate(parameters):
            drawn = torch.randn(p.shape, generator=generator)
            p.grad = torch.empty_like(p).copy_(drawn) if number or step else None
        optimizer.step()


OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def test_fused_sgd_is_sgd_also_for_a_weight_that_joins_later():
    ours, theirs = weights(), weights()
    steps(FusedSGD(ours, **OPTIONS), ours, 0, 4)
    steps(torch.optim.SGD(theirs, **OPTIONS), theirs, 0, 4)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sgd", [True, False])
def test_a_checkpoint_goes_from_fused_to_plain_and_back(sgd):
    """And into weights that lie in memory otherwise, as a GPU's do."""

    def build(fused, parameters):
        if not sgd:
            return torch.optim.AdamW(parameters, lr=0.1, fused=fused or None)
        kind = FusedSGD if fused else torch.optim.SGD
        return kind(parameters, **OPTIONS)

    whole = weights()
    steps(build(False, whole), whole, 0, 6)
    parameters = weights()
    optimizer = build(False, parameters)
    for first, fused in ((0, True), (2, False), (4, True)):
        steps(optimizer, parameters, first, first + 2)
        state = copy.deepcopy(optimizer.state_dict())
        layout = torch.channels_last if fused else torch.contiguous_format
        with torch.no_grad():
            parameters = [
                torch.nn.Parameter(p.contiguous(memory_format=layout) if p.ndim == 4 else p.clone())
                for p in parameters
            ]
        optimizer = build(fused, parameters)
        load_state(optimizer, state)
        assert bool(optimizer.param_groups[0]["fused"]) == fused
        for weight, values in optimizer.state.items():
            assert all(v.stride() == weight.stride() for v in values.values() if v.ndim)
    for a, b in zip(parameters, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
