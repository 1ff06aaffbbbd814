"""NaN and infinity: they never reach the weights, and a run that has nothing else ends."""

import json
import math
from pathlib import Path

import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.engine import train as training
from densessl.pretrain.engine.nonfinite import Patience
from densessl.pretrain.engine.step import StepOutcome, Stepper
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS


def poisoned(kinds):
    """MoCo whose step t goes wrong as ``kinds[t]`` says: in the loss, a gradient or the views."""

    class Poisoned(METHODS["moco"]):
        def forward(self, views, step):
            kind = kinds.get(step)
            if kind == "views":  # through every batch norm of both encoders
                for view in views:
                    view.image[0, 0, 0, 0] = math.nan
            outputs = super().forward(views, step)
            if kind == "loss":
                outputs["loss"] = outputs["loss"] * math.inf
            if kind == "gradient":
                handle = self.backbone.last[0].weight.register_hook(
                    lambda gradient: (handle.remove(), gradient.index_fill(0, ONE, math.nan))[1]
                )
            return outputs

    return Poisoned


ONE = torch.tensor([1])


BAD = {2: "loss", 3: "gradient", 4: "views", 5: "gradient"}  # of EIGHT steps
EIGHT = ("SOLVER.MAX_STEPS", 8, "CHECKPOINT.STEPS", 1, "CHECKPOINT.KEEP", 9, "LOG.PERIOD", 1)


def check_no_trace(cfg, different):
    """Of the bad steps of a run of MoCo with BAD and EIGHT, in its checkpoints and its log."""
    files = sorted(Path(cfg.OUTPUT_DIR).glob("checkpoints/*.pth"))
    states = {n: torch.load(file, weights_only=True) for n, file in enumerate(files, start=1)}
    for after in (3, 4, 5, 6):  # weights, both encoders' statistics, queue, pointer, momentum
        assert different(states[2]["model"], states[after]["model"]) == []
        assert different(states[2]["optimizer"]["state"], states[after]["optimizer"]["state"]) == []
    for before, after in ((1, 2), (6, 7), (7, 8)):
        changed = different(states[before]["model"], states[after]["model"])
        moved = {name.split("/")[1].split(".")[0] for name in changed}
        assert moved >= {"backbone", "momentum_backbone", "queue"}
    values = [t for t in states[8]["model"].values() if t.is_floating_point()]
    assert all(torch.isfinite(value).all() for value in values)
    text = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 2, 3, 4, 4, 4]
    assert ["loss" in line for line in lines] == [True] * 2 + [False] * 4 + [True] * 2


def test_a_bad_step_leaves_no_trace(tiny, monkeypatch, different):
    monkeypatch.setitem(METHODS, "moco", poisoned(BAD))
    cfg = tiny("moco", None, *EIGHT)
    train(cfg)
    check_no_trace(cfg, different)


def test_a_run_of_bad_steps_ends_naming_step_and_images(tiny, monkeypatch):
    monkeypatch.setitem(METHODS, "moco", poisoned(dict.fromkeys((1, 3, 4, 5), "loss")))
    cfg = tiny("moco", None, "SOLVER.MAX_SKIPPED", 3)
    batches = []
    collate = training.collate

    def watched(samples):
        batches.append([sample.index for sample in samples])
        return collate(samples)

    monkeypatch.setattr(training, "collate", watched)
    with pytest.raises(InputError, match="3 steps in a row .* at step 5 .*loss inf") as stopped:
        train(cfg)
    listed = (Path(cfg.OUTPUT_DIR) / "nonfinite_step_00000005.txt").read_text().split()
    assert listed == [f"{index:02d}.jpg" for index in batches[5]]
    assert listed[0] in str(stopped.value)


def test_bad_steps_before_a_checkpoint_still_count_after_it(tmp_path):
    bad = StepOutcome(
        {"loss": math.nan, "grad_norm": 1.0}, applied=False, overflow=False, agreed=[]
    )
    first = Patience(tmp_path, 3, lambda step: ["a.jpg"], writes=True)
    for step in (6, 7):
        first.count(step, bad)
    second = Patience(tmp_path, 3, lambda step: ["a.jpg"], writes=True)
    second.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="at step 8 .*loss nan"):
        second.count(8, bad)
    assert second.skipped == 3


def test_lowering_the_fp16_scale_is_not_held_against_a_run(tmp_path):
    overflow = StepOutcome(
        {"loss": 2.0, "grad_norm": math.inf}, applied=False, overflow=True, agreed=[]
    )
    patience = Patience(tmp_path, 1, lambda step: [], writes=True)
    for step in range(9):
        patience.count(step, overflow)
    assert (patience.skipped, patience.in_a_row) == (9, 0)


class Line(torch.nn.Module):
    """The smallest method: loss = w · view."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
        self.calls = []

    def forward(self, views, step):
        return {"loss": self.w * views[0]}

    def ddp_ignored(self):
        return []

    def moved_weights(self):
        return []

    def before_step(self, step):
        self.calls.append(("before", step))

    def after_backward(self, step):
        assert self.w.grad is not None
        self.calls.append(("backward", step))

    def after_step(self, step):
        self.calls.append(("after", step))


@pytest.mark.parametrize("ahead", [False, True])
def test_fp16_finds_its_scale_and_then_trains(ahead):
    method = Line()
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0, fused=ahead)
    stepper = Stepper(method, method, optimizer, torch.device("cpu"), amp="fp16", ahead=ahead)
    huge = 3e34  # times the first scale 65536 this is beyond float32
    scales, applied = [], []
    for step in range(6):
        scales.append(stepper.scaler.get_scale())
        outcome = stepper.launch([[torch.tensor(huge)]], step, lr=1e-35).outcome()
        applied.append(outcome.applied)
        assert outcome.applied or outcome.overflow
    assert applied == [False, False, False, True, True, True]
    assert scales[:4] == [65536.0, 32768.0, 16384.0, 8192.0]
    assert outcome.values["grad_norm"] == pytest.approx(huge)  # unscaled


def test_the_order_of_a_step():
    method = Line()
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    stepper = Stepper(method, method, optimizer, torch.device("cpu"))
    stepper.launch([[torch.tensor(2.0)]], step=0, lr=0.1)
    assert method.w.item() == pytest.approx(0.8)
    stepper.launch([[torch.tensor(math.nan)]], step=1, lr=0.1)
    assert method.w.item() == pytest.approx(0.8)
    stepper.launch([[torch.tensor(1.0)]], step=2, lr=0.5)
    assert method.w.item() == pytest.approx(0.3)
    assert method.calls == [
        *(("backward", 0), ("after", 0), ("before", 1)),
        *(("backward", 2), ("after", 2), ("before", 3)),
    ]


def test_a_group_of_fixed_rate_stays_at_the_peak_and_one_without_gradient_rests():
    class Rests(Line):
        def after_backward(self, step):
            self.w.grad = None

    method, resting = Line(), Rests()
    for each, w in ((method, 0.0), (resting, 1.0)):
        optimizer = torch.optim.SGD([{"params": [each.w], "fixed_lr": True}], lr=1.0)
        stepper = Stepper(each, each, optimizer, torch.device("cpu"))
        stepper.launch([[torch.tensor(2.0)]], step=0, lr=0.1, peak=0.5)
        assert each.w.item() == pytest.approx(w)
