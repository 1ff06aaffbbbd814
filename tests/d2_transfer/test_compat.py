import os
import subprocess
import sys

import pytest

from densessl.core.errors import EnvironmentLacks
from densessl.d2_transfer import compat

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, **environ) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environ}
    )


def test_setup_makes_every_part_that_transfer_uses_importable():
    code = """
from densessl.d2_transfer import compat
compat.setup()
import detectron2.engine, detectron2.evaluation, detectron2.modeling, detectron2.checkpoint
import detectron2.data.datasets.cityscapes, detectron2.projects.deeplab
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
anchors = DefaultAnchorGenerator(sizes=[[32]], aspect_ratios=[[1.0]], strides=[16])
assert len(anchors([torch.zeros(1, 1, 2, 3)])[0]) == 6
print(compat.version())
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "meshgrid" not in done.stderr  # nothing that a user can do anything about
    assert done.stdout.strip() == compat.version()


def test_missing_detectron2_says_the_command_that_mends_it():
    code = BLOCKER.format(names=["detectron2"]) + (
        "from densessl.core.errors import EnvironmentLacks\n"
        "from densessl.d2_transfer import compat\n"
        "try:\n    compat.setup()\n"
        "except EnvironmentLacks as error:\n    print(error.exit_code, error)"
    )
    done = run(code)
    assert done.stdout.startswith("3 detectron2 is not installed"), done.stdout + done.stderr
    assert "make setup" in done.stdout and "make detectron2-main" in done.stdout


def test_aliases_are_the_builtins_and_warn_of_nothing():
    code = """
import warnings; warnings.simplefilter("error")
from densessl.d2_transfer import compat
compat.setup()
import numpy, PIL.Image
assert numpy.array([1.5], dtype=numpy.float).dtype == "float64"
assert numpy.zeros(2, dtype=numpy.bool).dtype == "bool" and numpy.int is int
assert numpy.in1d([1, 5], [5, 6]).tolist() == [False, True]
assert PIL.Image.LINEAR == PIL.Image.BILINEAR
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_missing_compiled_op_is_named_when_it_is_called():
    compat.setup()
    if compat.has_compiled_ops():
        pytest.skip("the compiled ops are installed")
    import torch
    from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

    boxes = RotatedBoxes(torch.tensor([[5.0, 5, 4, 4, 0]]))
    with pytest.raises(EnvironmentLacks, match="box_iou_rotated.*make detectron2-main"):
        pairwise_iou_rotated(boxes, boxes)


def test_bias_decay_follows_weight_decay_and_spares_normalisation():
    from detectron2.solver import build_optimizer
    from torch import nn

    cfg = compat.get_cfg()
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 5e-4, 0.0
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    groups = build_optimizer(cfg, model).param_groups
    decay = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [5e-4, 5e-4, 0.0, 0.0]


def test_the_scheduler_class_is_what_detectron2_builds():
    import torch
    from detectron2.solver import build_lr_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = build_lr_scheduler(compat.get_cfg(), optimizer)
    assert isinstance(scheduler, compat.lr_scheduler_class())
