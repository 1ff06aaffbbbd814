"""What a step keeps in memory is known from shapes; what a CPU's cannot hold is refused first."""

import logging
import shlex

import pytest
import torch

from densessl.core import limits
from densessl.core.errors import EnvironmentLacks
from densessl.pretrain import config
from densessl.pretrain.engine import memory
from densessl.pretrain.engine.build import build_model
from densessl.pretrain.engine.train import train
from densessl.pretrain.views import View

CPU = torch.device("cpu")


@pytest.fixture
def warnings(caplog, monkeypatch):
    """``warnings()``: the texts so far."""
    monkeypatch.setattr(logging.getLogger("densessl"), "propagate", True)
    return lambda: [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]


@pytest.fixture
def free(monkeypatch):
    """``free(count)``: so many bytes are free on this machine."""
    return lambda count: monkeypatch.setattr(limits, "available_memory", lambda: count)


def kept_by_a_step(cfg):
    """The bytes that tensors with numbers keep."""
    method, _ = build_model(cfg, CPU)
    images, generator = cfg.SOLVER.BATCH_SIZE, torch.Generator().manual_seed(0)
    sides = [cfg.VIEWS.SIZE] * 2 + [cfg.VIEWS.LOCAL_SIZE] * cfg.VIEWS.LOCAL_CROPS
    views = [
        View(
            torch.randn(images, 3, side, side, generator=generator),
            torch.tensor([0.1, 0.1, 0.9, 0.9]).repeat(images, 1),
            torch.zeros(images, dtype=torch.bool),
            torch.full((images, 2), 64.0),
        )
        for side in sides
    ]
    method.steps = method.steps_per_epoch = 10
    method.before_step(0)
    kept = memory.Kept()
    with kept.here():
        method(views, 0)
    return kept.bytes([*method.parameters(), *method.buffers()])


@pytest.mark.parametrize("name", ["moco_v2", "densecl", "setsim_paper", "simsiam", "swav", "dino"])
def test_shapes_tell_what_a_step_keeps(name):
    words = ["SOLVER.BATCH_SIZE", "8", "BACKBONE.GROUP_SIZE", "4", "DEVICE", "cpu"]
    cfg = config.load(f"{name}_scenes", words)
    assert memory.kept_bytes(cfg, 8) == pytest.approx(kept_by_a_step(cfg), rel=0.02)


def test_what_cannot_fit_is_refused_with_options_that_do(tiny, free, tmp_path):
    cfg = tiny("moco", tmp_path / "run", "AMP", "off")
    kept = memory.kept_bytes(cfg, 8)
    free(int(0.6 * kept))
    with pytest.raises(EnvironmentLacks, match=r"SOLVER.BATCH_SIZE 8 keeps .* are free") as caught:
        train(cfg)
    assert not (tmp_path / "run").exists()
    told = str(caught.value).partition("; give ")[2]
    assert told.startswith("SOLVER.ACCUMULATE 4 (") and " or SOLVER.BATCH_SIZE 2 (" in told
    for part in told.split(" or ")[:2]:
        option, value = shlex.split(part)[:2]
        fitting = cfg.clone()
        fitting.merge_from_list([option, value])
        memory.check_memory(fitting, CPU, begun=False)
    with pytest.raises(
        EnvironmentLacks, match=r"give SOLVER.ACCUMULATE 4 --change \S+ \([^;]*$"
    ) as at:
        memory.check_memory(cfg, CPU, begun=True)
    assert "BATCH_SIZE 2" not in str(at.value)


def test_what_may_not_fit_is_a_warning(tiny, free, warnings):
    cfg = tiny("moco", None, "AMP", "off")
    free(int(1.2 * memory.kept_bytes(cfg, 8)))
    memory.check_memory(cfg, CPU, begun=False)
    [warned] = warnings()
    assert "the system may end the run; give SOLVER.ACCUMULATE 2 (" in warned
    assert "keeps" in warned and "or SOLVER.BATCH_SIZE 4" in warned


def test_nothing_is_said_of_what_fits_or_is_not_known(tiny, free, tmp_path, warnings):
    file = tmp_path / "own.py"
    file.write_text(
        "from densessl.pretrain.methods.moco import MoCo\n\n\n"
        "class Looks(MoCo):\n"
        "    def forward(self, views, step):\n"
        "        assert views[0].image.mean().item() < 9\n"
        "        return super().forward(views, step)\n"
    )
    cfg = tiny("moco", None, "AMP", "off")
    free(2 * memory.kept_bytes(cfg, 8))
    memory.check_memory(cfg, CPU, begun=False)
    free(1)
    memory.check_memory(tiny(f"{file}:Looks"), CPU, begun=False)
    memory.check_memory(tiny("moco", None, "COMPILE", True), CPU, begun=False)
    memory.check_memory(cfg, torch.device("cuda"), begun=False)
    free(None)
    memory.check_memory(cfg, CPU, begun=False)
    assert not warnings()
