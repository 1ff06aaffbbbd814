import copy
import os
import subprocess
import sys
import time

import pytest

from console.errors import EnvironmentLacks, InputError, StoppedEarly
from d2_transfer import compat

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
from d2_transfer import compat
compat.setup()
import detectron2.engine, detectron2.evaluation, detectron2.modeling, detectron2.checkpoint
import detectron2.data.datasets.cityscapes, detectron2.projects.deeplab
print(compat.version())
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == compat.version()


def test_missing_detectron2_says_the_command_that_mends_it():
    code = BLOCKER.format(names=["detectron2"]) + (
        "from d2_transfer import compat\nfrom console.errors import EnvironmentLacks\n"
        "try:\n    compat.setup()\n"
        "except EnvironmentLacks as error:\n    print(error.exit_code, error)"
    )
    done = run(code)
    assert done.stdout.startswith("3 detectron2 is not installed"), done.stdout + done.stderr
    assert "make setup" in done.stdout and "make detectron2-main" in done.stdout


def test_aliases_are_the_builtins_and_warn_of_nothing():
    code = """
import warnings; warnings.simplefilter("error")
from d2_transfer import compat
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
    decay = {id(group["params"][0]): group["weight_decay"] for group in groups}
    assert [decay[id(p)] for p in model.parameters()] == [5e-4, 5e-4, 0.0, 0.0]


def test_the_scheduler_class_is_what_detectron2_builds():
    import torch
    from detectron2.solver import build_lr_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = build_lr_scheduler(compat.get_cfg(), optimizer)
    assert isinstance(scheduler, compat.lr_scheduler_class())


@pytest.fixture(scope="module")
def small_coco(tmp_path_factory):
    """A data set of 12 random images with boxes, masks, keypoints; detections near them."""
    import json

    import numpy
    import torch

    compat.setup()
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances

    draw = numpy.random.default_rng(0)
    images, annotations, outputs = [], [], []
    for image in range(1, 13):
        images.append({"id": image, "width": 200, "height": 150, "file_name": f"{image}.jpg"})
        corners, classes, points = [], [], []
        for _ in range(int(draw.integers(1, 6))):
            x, y, w, h = (float(v) for v in draw.integers([0, 0, 8, 8], [120, 80, 80, 70]))
            keypoints = numpy.stack([x + w * draw.random(17), y + h * draw.random(17), [2] * 17], 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(draw.integers(1, 4)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(draw.random() < 0.1),
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": 17,
                }
            )
            for _ in range(2):  # two detections near it
                box = numpy.array([x, y, x + w, y + h]) + draw.normal(0, 4, 4)
                corners.append(box.tolist())
                classes.append(annotations[-1]["category_id"] - 1)
                points.append(keypoints + draw.normal(0, 2, keypoints.shape))
        masks = torch.zeros(len(corners), 150, 200, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(
            masks, numpy.maximum(corners, 0).astype(int), strict=True
        ):
            mask[y1:y2, x1:x2] = True
        instances = Instances((150, 200))
        instances.pred_boxes = Boxes(torch.tensor(corners))
        instances.scores = torch.tensor(draw.random(len(corners)))
        instances.pred_classes = torch.tensor(classes)
        instances.pred_masks = masks
        instances.pred_keypoints = torch.tensor(numpy.array(points))
        outputs.append({"instances": instances})
    categories = [
        {"id": k, "name": str(k), "keypoints": [str(n) for n in range(17)]} for k in (1, 2, 3)
    ]
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    held = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    path.write_text(json.dumps(held))
    MetadataCatalog.get("small_coco").set(
        json_file=str(path),
        thing_classes=["1", "2", "3"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1, 3: 2},
    )
    return [{"image_id": image["id"]} for image in images], outputs


def test_the_fast_coco_evaluator_gives_the_numbers_of_pycocotools(small_coco, tmp_path):
    results = []
    for fast in (False, True):
        evaluator = compat.coco_evaluator("small_coco", str(tmp_path), fast, distributed=False)
        evaluator.reset()
        evaluator.process(*copy.deepcopy(small_coco))  # it moves the keypoints in place
        results.append(evaluator.evaluate())
    slow, fast = results
    assert set(slow) == set(fast) == {"bbox", "segm", "keypoints"}
    for task, metrics in slow.items():
        assert 1 < metrics["AP"] < 99
        assert fast[task] == pytest.approx(metrics, abs=1e-9, nan_ok=True), task


# launch: the children import these by name, so they live in a file of their own -----------------

CHILDREN = '''
import pathlib, signal, sys, time

import torch

from console.errors import InputError, StoppedEarly
from d2_transfer import compat

compat.setup()
from detectron2.utils import comm


def train(path):
    """Two steps of a linear model with DDP: each rank its own sample."""
    torch.manual_seed(0)
    model = compat.create_ddp_model(torch.nn.Linear(2, 1), broadcast_buffers=False)
    for _ in range(2):
        model.zero_grad()
        model(torch.tensor([[1.0, comm.get_local_rank()]])).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    weights = [p.tolist() for p in model.parameters()]
    everyone = comm.gather(weights)
    if comm.is_main_process():
        torch.save(everyone, path)


def refuse(path):
    if comm.get_rank() == 1:
        raise InputError(f"bad input in {path}")
    comm.synchronize()  # waits for the one that has left


def stop(path):
    if comm.is_main_process():
        time.sleep(1)  # the slow one: writes the checkpoint
        pathlib.Path(path).write_text("saved")
    raise StoppedEarly("saved; run again to go on")


def train_until_told(path):
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    pathlib.Path(path, f"started_{comm.get_rank()}").touch()
    while not told:
        time.sleep(0.05)
    pathlib.Path(path, f"saved_{comm.get_rank()}").touch()
    raise StoppedEarly("saved; run again to go on")


if __name__ == "__main__":
    try:
        compat.launch(train_until_told, 2, (sys.argv[1],), cuda=False)
    except StoppedEarly as stopped:
        sys.exit(stopped.exit_code)
'''


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    (folder / "launched_by_test.py").write_text(CHILDREN)
    sys.path.insert(0, str(folder))
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), old]))
    import launched_by_test

    yield launched_by_test
    sys.path.remove(str(folder))
    os.environ.pop("PYTHONPATH") if old is None else os.environ.update(PYTHONPATH=old)


def test_two_processes_average_their_gradients(children, tmp_path):
    import torch

    compat.launch(children.train, 2, (str(tmp_path / "w.pth"),), cuda=False)
    first, second = torch.load(tmp_path / "w.pth", weights_only=True)
    assert first == second
    torch.manual_seed(0)
    start = [p.tolist() for p in torch.nn.Linear(2, 1).parameters()]
    moved = [start[0][0][0] - 0.2, start[0][0][1] - 0.1, start[1][0] - 0.2]  # mean gradient 1, ½, 1
    assert first[0][0] + first[1] == pytest.approx(moved, abs=1e-6)


@pytest.mark.slow
def test_an_input_error_in_a_child_is_raised_as_itself(children, tmp_path):
    with pytest.raises(InputError, match="bad input in here"):
        compat.launch(children.refuse, 2, ("here",), cuda=False)


def test_nobody_is_ended_before_the_slowest_has_saved(children, tmp_path):
    with pytest.raises(StoppedEarly, match="run again"):
        compat.launch(children.stop, 2, (str(tmp_path / "state"),), cuda=False)
    assert (tmp_path / "state").read_text() == "saved"


@pytest.mark.slow
def test_sigterm_to_the_parent_reaches_every_process_and_all_save(children, tmp_path):
    job = subprocess.Popen([sys.executable, children.__file__, str(tmp_path)])
    while len(list(tmp_path.glob("started_*"))) < 2:
        assert job.poll() is None
        time.sleep(0.1)
    job.terminate()
    assert job.wait() == StoppedEarly.exit_code
    assert len(list(tmp_path.glob("saved_*"))) == 2


def test_one_process_is_a_plain_call():
    seen = []
    compat.launch(seen.append, 1, ("x",))
    assert seen == ["x"]
