"""FCOS: targets by hand, losses in float64, boxes from perfect predictions, and the whole verb."""

import math
import os
import signal
import sys

import pytest

from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import compat, main, results
from densessl.d2_transfer.resolve import resolve

compat.setup()
import torch  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402

from densessl.d2_transfer.launch import Rendezvous  # noqa: E402
from densessl.d2_transfer.modeling.fcos_targets import (  # noqa: E402
    assign,
    boxes_at,
    centerness_of,
    locations_of,
    losses,
)
from densessl.d2_transfer.trainer import Trainer  # noqa: E402

SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
NONE = 9  # the background of nine classes


def model_of(*overrides, protocol="coco_fcos_1x", mini=True):
    words = [*SMALL, *overrides]
    cfg = resolve(protocol, gpus=1, mini=mini, cuda=False, overrides=words)
    torch.manual_seed(0)
    return cfg, Trainer.build_model(cfg)


# Targets -----------------------------------------------------------------------------------------


def two_levels(limit: float):
    """Of an image of 32 x 32: points 4, 12, 20, 28 of stride 8, and 8, 24 of stride 16."""
    return locations_of([(4, 4), (2, 2)], [8, 16], [limit], "cpu")


def learnt(locations, boxes, classes, radius=1.5) -> dict:
    """{(stride, x, y): (class, left, top, right, bottom in pixels)} of what is not background."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels, distances = assign(locations, boxes, torch.tensor(classes), NONE, radius)
    assert labels.shape == (20,) and distances.shape == (20, 4)
    sides = distances * locations.strides[:, None]
    every = zip(locations.strides, locations.points, labels, sides, strict=True)
    return {
        (int(stride), *point.tolist()): (int(label), *side.tolist())
        for stride, point, label, side in every
        if label != NONE
    }


def test_a_location_learns_the_smallest_box_that_its_level_is_for():
    """A large box for stride 16; of two for stride 8 one is inside the other."""
    boxes = [(0, 0, 32, 32), (8, 8, 24, 24), (8, 8, 16, 16)]
    assert learnt(two_levels(16), boxes, [3, 5, 7]) == {
        (8, 12, 12): (7, 4, 4, 4, 4),
        (8, 20, 12): (5, 12, 4, 4, 12),
        (8, 12, 20): (5, 4, 12, 12, 4),
        (8, 20, 20): (5, 12, 12, 4, 4),
        (16, 8, 8): (3, 8, 8, 24, 24),
        (16, 24, 8): (3, 24, 8, 8, 24),
        (16, 8, 24): (3, 8, 24, 24, 8),
        (16, 24, 24): (3, 24, 24, 8, 8),
    }


def test_only_the_middle_of_a_box_is_learnt_from():
    """Its centre is (16, 16): within 1.5 strides lie 12 and 20, not 4 and 28 at just 12 pixels."""
    near = learnt(two_levels(100), [(0, 0, 32, 32)], [1])
    assert near.keys() == {(8, x, y) for x in (12, 20) for y in (12, 20)}
    whole = learnt(two_levels(100), [(0, 0, 32, 32)], [1], radius=math.inf)
    assert whole.keys() == {(8, x, y) for x in (4, 12, 20, 28) for y in (4, 12, 20, 28)}
    # The middle of a narrow box reaches beyond it: a point on its side, or outside, is not in it.
    assert learnt(two_levels(100), [(12, 8, 18, 24)], [1]) == {}


def test_a_size_between_two_levels_is_learnt_on_both():
    assert learnt(two_levels(16), [(8, 8, 28, 28)], [1]) == {
        (8, 12, 12): (1, 4, 4, 16, 16),
        (8, 20, 12): (1, 12, 4, 8, 16),
        (8, 12, 20): (1, 4, 12, 16, 8),
        (8, 20, 20): (1, 12, 12, 8, 8),
        (16, 24, 24): (1, 16, 16, 4, 4),
    }


def test_without_boxes_and_of_boxes_without_area_nothing_is_learnt():
    assert learnt(two_levels(16), [], []) == {} == learnt(two_levels(16), [(12, 4, 12, 28)], [2])


def test_centerness_falls_from_the_centre_to_the_sides():
    distances = torch.tensor([[2.0, 2, 2, 2], [1, 2, 4, 2], [1, 1, 4, 9]])
    torch.testing.assert_close(centerness_of(distances), torch.tensor([1, 1 / 2, 1 / 6]))


# Losses ------------------------------------------------------------------------------------------


def predictions(images=4, classes=3, seed=0):
    """Logits, distances, centerness, labels and targets of random images of 30 locations."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 30, classes, generator=generator)
    distances = torch.rand(images, 30, 4, generator=generator) * 3
    distances[:, ::7, 0] = 0  # as the ReLU gives them
    centerness = torch.randn(images, 30, generator=generator)
    labels = torch.randint(0, classes + 1, (images, 30), generator=generator)
    labels[0] = classes  # an image without objects
    targets = torch.rand(images, 30, 4, generator=generator) * 3 + 0.1
    return [logits, distances, centerness, labels, targets]


def in_float64(logits, distances, centerness, labels, targets, alpha, gamma) -> dict[str, float]:
    """The losses as the papers write them, location by location."""
    classes = logits.shape[2]
    cls, reg, ctr, weights, count = 0.0, 0.0, 0.0, 0.0, 0
    every = zip(*(each.flatten(0, 1).tolist() for each in (logits, distances)), strict=True)
    others = zip(*(each.flatten(0, 1).tolist() for each in (centerness, labels)), strict=True)
    for (scores, d), (c, label), t in zip(
        every, others, targets.flatten(0, 1).tolist(), strict=True
    ):
        for kind, score in enumerate(scores):
            p = 1 / (1 + math.exp(-score))
            p, a = (p, alpha) if kind == label else (1 - p, 1 - alpha)
            cls -= a * (1 - p) ** gamma * math.log(p)
        if label == classes:
            continue
        across, down = (min(t[k], t[k + 2]) / max(t[k], t[k + 2]) for k in (0, 1))
        weight = math.sqrt(across * down)
        both, hull = (
            (f(d[0], t[0]) + f(d[2], t[2])) * (f(d[1], t[1]) + f(d[3], t[3])) for f in (min, max)
        )
        union = sum((x[0] + x[2]) * (x[1] + x[3]) for x in (d, t)) - both
        reg += weight * (1 - both / union + (hull - union) / hull)
        p = 1 / (1 + math.exp(-c))
        ctr -= weight * math.log(p) + (1 - weight) * math.log(1 - p)
        weights, count = weights + weight, count + 1
    return {
        "loss_cls": cls / count,
        "loss_box_reg": reg / weights,
        "loss_centerness": ctr / count,
    }


def test_the_losses_are_those_of_the_papers():
    held = predictions()
    found = losses(*held, alpha=0.25, gamma=2.0)
    wanted = in_float64(*held, alpha=0.25, gamma=2.0)
    assert {name: pytest.approx(float(each), rel=1e-5) for name, each in found.items()} == wanted


def test_a_batch_without_objects_has_finite_losses_and_every_gradient():
    _, model = model_of()
    empty = Instances((64, 64), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long())
    found = model([{"image": torch.zeros(3, 64, 64), "instances": empty}])
    assert float(found["loss_box_reg"].detach()) == float(found["loss_centerness"].detach()) == 0
    sum(found.values()).backward()
    for name, parameter in model.named_parameters():  # None would have several processes fail
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


CHILDREN = """
import torch

from densessl.core import distributed
from densessl.d2_transfer.modeling.fcos_targets import losses


def gradients(held, path):
    logits, distances, centerness, labels, targets = (distributed.mine(each) for each in held)
    predicted = [each.clone().requires_grad_() for each in (logits, distances, centerness)]
    sum(losses(*predicted, labels, targets, 0.25, 2.0).values()).backward()
    whole = [distributed.gather(each.grad) for each in predicted]
    if distributed.is_main():
        torch.save(whole, path)
"""


def test_processes_together_have_the_gradients_of_the_whole_batch(tmp_path, monkeypatch):
    (tmp_path / "fcos_children.py").write_text(CHILDREN)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    import fcos_children

    held = predictions()
    found = {}
    for processes in (1, 2):
        file = tmp_path / f"{processes}.pth"
        Rendezvous().run(fcos_children.gradients, processes, (held, str(file)), cuda=False)
        found[processes] = torch.load(file, weights_only=True)
    for one, two in zip(found[1], found[2], strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(two / 2, one)  # DDP divides by the number of processes


# Detections --------------------------------------------------------------------------------------


def perfect(model, boxes, classes, size=(128, 160)):
    """Locations, and the predictions that equal what an image with these boxes has them learn."""
    shapes = [(math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in model.strides]
    locations = locations_of(shapes, model.strides, model.limits, "cpu")
    labels, distances = assign(locations, boxes, classes, model.classes, model.radius)
    logits = torch.full((len(labels), model.classes), -9.0)
    with_box = labels < model.classes
    logits[with_box, labels[with_box]] = 9.0
    centerness = torch.full((len(labels),), -9.0)
    centerness[with_box] = torch.special.logit(centerness_of(distances[with_box]), eps=1e-4)
    return locations, logits, distances, centerness


def test_perfect_predictions_give_the_boxes_back():
    _, model = model_of("MODEL.FCOS.SIZES_OF_INTEREST", "[24, 48, 96, 192]")
    boxes = torch.tensor(  # the third is inside the second; the fourth is learnt at stride 32
        [
            (8.0, 10, 30, 31),
            (60, 20, 99, 70),
            (64, 30, 80, 44),
            (2, 70, 150, 127),
            (110, 8, 150, 50),
        ]
    )
    classes = torch.tensor([3, 17, 5, 0, 79])
    found = model.detect(*perfect(model, boxes, classes), (128, 160))
    order = {int(each): n for n, each in enumerate(classes)}
    assert sorted(found.pred_classes.tolist()) == sorted(order)
    for box, kind in zip(found.pred_boxes.tensor, found.pred_classes, strict=True):
        torch.testing.assert_close(box, boxes[order[int(kind)]], atol=1e-3, rtol=0)
    assert (found.scores[:-1] >= found.scores[1:]).all() and found.image_size == (128, 160)


def test_the_threshold_is_for_classes_and_the_score_has_centerness():
    _, model = model_of("MODEL.FCOS.SCORE_THRESH_TEST", "0.25", "MODEL.FCOS.NMS_THRESH_TEST", "1.0")
    locations, logits, distances, centerness = perfect(
        model, torch.zeros(0, 4), torch.zeros(0).long()
    )
    distances += 1
    of_four, far = 0, len(logits) - 1  # the finest level and the coarsest
    logits[of_four, :2] = torch.special.logit(torch.tensor([0.3, 0.2]))
    logits[far, 2] = torch.special.logit(torch.tensor(0.9))
    centerness[of_four] = torch.special.logit(torch.tensor(0.1))
    centerness[far] = torch.special.logit(torch.tensor(0.6))
    found = model.detect(locations, logits, distances, centerness, (128, 160))
    assert found.pred_classes.tolist() == [2, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.54, 0.03]).sqrt())
    wanted = boxes_at(locations.points, locations.strides[:, None].expand(-1, 4))
    torch.testing.assert_close(found.pred_boxes.tensor, wanted[[far, of_four]])


def test_each_level_has_its_best_candidates_and_the_image_its_best_detections():
    words = ["MODEL.FCOS.TOPK_CANDIDATES_TEST", "3", "MODEL.FCOS.NMS_THRESH_TEST", "1.0"]
    _, model = model_of(*words, "TEST.DETECTIONS_PER_IMAGE", "9")
    locations, logits, distances, centerness = perfect(
        model, torch.zeros(0, 4), torch.zeros(0).long()
    )
    logits[:, 4] = torch.linspace(1, 3, len(logits))  # the coarser, the surer
    found = model.detect(locations, logits, distances + 1, centerness + 18, (128, 160))
    widths = found.pred_boxes.tensor[:, 2] - found.pred_boxes.tensor[:, 0]
    assert (widths / 2).tolist() == [128, 128, 64, 64, 64, 32, 32, 32, 16]


# Config ------------------------------------------------------------------------------------------


def test_the_options_are_the_published_ones():
    node = resolve("coco_fcos_1x").MODEL.FCOS
    assert {key: node[key] for key in node} == {  # AdelaiDet, adet/config/defaults.py
        "NUM_CLASSES": 80,
        "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
        "NUM_CONVS": 4,
        "NORM": "GN",
        "PRIOR_PROB": 0.01,
        "SIZES_OF_INTEREST": [64, 128, 256, 512],
        "CENTER_SAMPLING_RADIUS": 1.5,
        "FOCAL_LOSS_ALPHA": 0.25,
        "FOCAL_LOSS_GAMMA": 2.0,
        "SCORE_THRESH_TEST": 0.05,
        "TOPK_CANDIDATES_TEST": 1000,
        "NMS_THRESH_TEST": 0.6,
    }


def test_the_model_is_the_published_one():
    cfg = resolve("coco_fcos_1x", gpus=1, cuda=False)
    model = Trainer.build_model(cfg)
    assert model.strides == [8, 16, 32, 64, 128]
    state = model.state_dict()
    channels, conv = 256, 9 * 256 + 1  # with GN's weight and bias behind eight of them, and scales
    expected = 8 * channels * (conv + 2) + (80 + 4 + 1) * conv + 5
    assert sum(each.numel() for each in model.head.parameters()) == expected
    assert state["backbone.top_block.p6.weight"].shape == (256, 256, 3, 3)  # from p5
    probabilities = state["head.cls_score.bias"].sigmoid()
    torch.testing.assert_close(probabilities, torch.full((80,), 0.01))
    norms = [each for each in model.head.modules() if isinstance(each, torch.nn.GroupNorm)]
    assert len(norms) == 8 and {each.num_groups for each in norms} == {32}


def test_a_miniature_finds_what_is_not_certain():
    mini, full = (resolve("coco_fcos_1x", mini=each, gpus=1).MODEL.FCOS for each in (True, False))
    assert {key for key in full if mini[key] != full[key]} == {"SCORE_THRESH_TEST"}
    assert mini.SCORE_THRESH_TEST == 0.01
    assert full == resolve("coco_mask_fpn_1x", mini=True, gpus=1).MODEL.FCOS


def test_options_of_fcos_change_no_fingerprint_of_another_model():
    config = results.as_dict(resolve("voc_det_c4"))
    before = {**config, "MODEL": {**config["MODEL"]}}
    del before["MODEL"]["FCOS"]
    assert results.config_fingerprint(before) == results.config_fingerprint(config)


@pytest.mark.parametrize(
    "words, says",
    [
        (
            ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"],
            "IN_FEATURES has p7, but MODEL.BACKBONE.NAME build_resnet_fpn_backbone gives p3, p4, "
            "p5, p6 alone; build_resnet_fpn_p5_backbone",
        ),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64, 128]"], "one less than the 5 levels"),
        (["MODEL.FCOS.SIZES_OF_INTEREST", "[64, 128, 128, 256]"], "allowed: increasing numbers"),
        (["MODEL.FCOS.NORM", "SyncBN"], "MODEL.FCOS.NORM is 'SyncBN'; allowed: 'GN', or ''"),
        (["MODEL.FCOS.CENTER_SAMPLING_RADIUS", "0.0"], "RADIUS is 0.0; allowed: more than 0"),
    ],
)
def test_options_that_make_no_detector_are_refused(words, says):
    with pytest.raises(InputError) as caught:
        model_of(*words)
    assert says in str(caught.value)


# The verb ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trial_that_ctrl_c_stopped_is_bit_for_bit_the_one_that_was_not(
    tmp_path, scenes, monkeypatch, our_checkpoint
):
    from densessl.d2_transfer import hooks

    weights = our_checkpoint(tmp_path / "backbone.pth", depth=18)
    count = hooks.TrialBar.after_step

    def press_ctrl_c_in_the_second_step(self):
        count(self)
        if self.trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGINT)

    def go(name):
        words = [str(weights), "--protocol", "coco_fcos_1x", "--mini", "--trials", "1"]
        words += ["-o", str(tmp_path / name), "--data", str(scenes), *SMALL]
        words += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
        words += ["SOLVER.MAX_ITER", "4", "TEST.PRECISE_BN.NUM_ITER", "1"]
        assert main.main(words) == 0
        folder = tmp_path / name / "trial_1"
        model = torch.load(folder / "model_final.pth", weights_only=True)["model"]
        return model, results.load(folder).metrics

    whole, metrics = go("whole")
    with monkeypatch.context() as patched:
        patched.setattr(hooks.TrialBar, "after_step", press_ctrl_c_in_the_second_step)
        with pytest.raises(StoppedEarly, match="stopped at step 2 of 4, saved"):
            go("parts")
    parts, same = go("parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert same == pytest.approx(metrics, nan_ok=True, rel=0, abs=0)
