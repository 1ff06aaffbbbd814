"""Distillation: the loss by its formula, a teacher that stays as it is, a student that follows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import build_method
from densessl.pretrain.views import View


def student(teacher, *overrides):
    words = ["BACKBONE.NAME", "resnet18", "BACKBONE.NORM", "BN", "DISTILL.TEACHER", str(teacher)]
    torch.manual_seed(0)
    return build_method(config.load("distill", [*words, *overrides])).train()


def views(B=3, size=64):
    generator = torch.Generator().manual_seed(1)
    return [
        View(
            torch.randn(B, 3, size, size, generator=generator),
            torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(B, 1),
            torch.zeros(B, dtype=torch.bool),
            torch.ones(B, 2),
        )
        for _ in range(2)
    ]


def test_the_loss_is_one_less_the_correlation_of_channels(teacher):
    method, weight = student(teacher, "DENSE.WEIGHT", "0.3").double(), 0.3
    batch = [replace(view, image=view.image.double()) for view in views()]
    values = method(batch)
    images = torch.cat([view.image for view in batch])
    with torch.no_grad():
        f = method.backbone(images)["layer4"]
        t = method.teacher(images)["layer4"]
        q, z = method.dense_projector(f).numpy(), method.projector(f.mean((2, 3))).numpy()
    t = t.numpy()
    dense = [
        np.corrcoef(q[n, :, y, x], t[n, :, y, x])[0, 1]
        for n, y, x in np.ndindex(len(q), *q.shape[2:])
    ]
    image = [np.corrcoef(z[n], t[n].mean((1, 2)))[0, 1] for n in range(len(z))]
    assert float(values["loss/dense"]) == pytest.approx(1 - np.mean(dense), abs=1e-9)
    assert float(values["loss/image"]) == pytest.approx(1 - np.mean(image), abs=1e-9)
    expected = (1 - weight) * (1 - np.mean(image)) + weight * (1 - np.mean(dense))
    assert float(values["loss"]) == pytest.approx(expected, abs=1e-9)


def test_the_teacher_stays_as_its_file_has_it(teacher):
    method = student(teacher)
    optimizer = torch.optim.SGD(method.parameter_groups(method.cfg), lr=0.1)
    for _ in range(2):
        method(views())["loss"].backward()
        method.backward_done()
        optimizer.step()
        method.step_done()
    held = torch.load(teacher, weights_only=True)
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, held[name]), name
    grouped = [
        p for group in method.parameter_groups(config.load("distill")) for p in group["params"]
    ]
    assert not {id(p) for p in method.teacher.parameters()} & {id(p) for p in grouped}


def test_maps_of_a_teacher_with_other_strides_and_channels(tmp_path):
    network = build_backbone("vit_tiny")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "vit.pth")
    values = student(tmp_path / "vit.pth")(views())
    assert torch.isfinite(values["loss"]) and values["loss"].requires_grad


def test_a_run_follows_its_teacher_and_resumes(teacher, tiny, tmp_path):
    def run(folder, *more):
        options = ["DISTILL.TEACHER", str(teacher), "SOLVER.OPTIMIZER", "adamw", "LOG.PERIOD", 1]
        cfg = tiny("distill", tmp_path / folder, *options, "SOLVER.MAX_STEPS", 12, *more)
        train(cfg)
        return [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").open()]

    lines = run("whole", "CHECKPOINT.STEPS", 6, "CHECKPOINT.KEEP", 3)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    final = torch.load(tmp_path / "whole" / "backbone_final.pth", weights_only=True)
    for file in ("backbone_final.pth", "checkpoints/step_00000012.pth"):
        (tmp_path / "whole" / file).unlink()
    again = run("whole", "CHECKPOINT.STEPS", 6, "CHECKPOINT.KEEP", 3)
    assert [line["loss"] for line in again] == [line["loss"] for line in lines]
    resumed = torch.load(tmp_path / "whole" / "backbone_final.pth", weights_only=True)
    assert all(torch.equal(final["backbone"][n], resumed["backbone"][n]) for n in final["backbone"])


@pytest.mark.parametrize("path, key", [("", "''"), ("absent.pth", "absent.pth"), ("text", "text")])
def test_a_teacher_that_is_none_is_refused_before_any_work(path, key, tiny, tmp_path):
    (tmp_path / "text").write_text("no weights")
    cfg = tiny("distill", tmp_path / "run", "DISTILL.TEACHER", path and str(tmp_path / path))
    with pytest.raises(InputError, match="DISTILL.TEACHER") as refused:
        train(cfg)
    assert key in str(refused.value) and not Path(cfg.OUTPUT_DIR).exists()


def test_a_network_that_the_file_does_not_hold_names_its_option(teacher):
    with pytest.raises(InputError, match="give DISTILL.NETWORK resnet18"):
        student(teacher, "DISTILL.NETWORK", "resnet50")
