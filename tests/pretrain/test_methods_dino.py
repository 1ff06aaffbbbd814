"""DINO and SCFS: official numbers of heads, losses and centres; which views meet which."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.correspondence import crop_in_view
from densessl.pretrain.methods import build_method
from densessl.pretrain.methods.dino import DINOHead, pooled
from densessl.pretrain.methods.scfs import LevelHead
from densessl.pretrain.views import View

GOLDEN = Path(__file__).parents[1] / "golden"


def load(name):
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / name).items()}


def assert_close(found, expected, tolerance):
    """Absolute plus relative to the largest magnitude, as the golden README asks."""
    expected = expected.double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def fill(module, arrays):
    state = {name: arrays[f"w__{name.replace('.', '__')}"] for name in module.state_dict()}
    module.load_state_dict(state)


def plain_view(images):
    box = torch.tensor([0.0, 0.0, 10.0, 10.0]).repeat(len(images), 1)
    return View(images, box, torch.zeros(len(images), dtype=torch.bool), box[:, 2:])


@pytest.mark.parametrize("norm", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_dinos_head_is_the_official_one(norm, dtype, tolerance):
    arrays = load(f"dino/head_bn{norm}.npz")
    options = config.defaults().DINO
    options.HIDDEN, options.BOTTLENECK, options.PROTOTYPES = 16, 8, 32
    options.HEAD_BN = bool(norm)
    head = DINOHead({"layer4": 12}, options)
    fill(head, arrays)
    head.to(dtype).train()
    x = arrays["x"].to(dtype).requires_grad_()
    y = head(x)
    (y * arrays["cot"].to(dtype)).sum().backward()
    assert_close(y, arrays["y_f64"], tolerance)
    assert_close(x.grad, arrays["grad_x_f64"], tolerance)
    assert not head.last_layer.weight_g.requires_grad
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            assert_close(
                parameter.grad, arrays[f"grad_w__{name.replace('.', '__')}_f64"], tolerance
            )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 5e-5)])
def test_a_levels_head_is_the_official_one(dtype, tolerance):
    arrays = load("scfs/shallow_head.npz")
    head = LevelHead(8, 10, 6, width=4)
    fill(head, arrays)
    head.to(dtype).train()
    x = arrays["x"].to(dtype).requires_grad_()
    y = head(x)
    (y * arrays["cot"].to(dtype)).sum().backward()
    assert_close(y, arrays["y_f64"], tolerance)
    assert_close(x.grad, arrays["grad_x_f64"], tolerance)


class BySize(nn.Module):
    """A head whose output is given, by the number of its rows."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = {len(output): output for output in outputs}

    def forward(self, x):
        return self.outputs[len(x)]


@pytest.mark.parametrize("name", ["loss_epoch0", "loss_epoch60"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_scfss_whole_loss_is_the_official_one(name, dtype, tolerance):
    """The released code's form: all terms, all gradients, all centres."""
    arrays = load(f"scfs/{name}.npz")
    options = {
        "DINO.PROTOTYPES": 32,
        "SCFS.DIM": 32,
        "VIEWS.LOCAL_CROPS": 3,
        "DINO.STUDENT_TEMPERATURE": float(arrays["student_temp"]),
        "DINO.CENTER_MOMENTUM": float(arrays["center_momentum"]),
        "DINO.TEACHER_TEMPERATURE": float(arrays["teacher_temp"]),
        "DINO.WARMUP_TEACHER_TEMPERATURE": float(arrays["warmup_teacher_temp"]),
        "DINO.WARMUP_TEACHER_EPOCHS": int(arrays["warmup_teacher_temp_epochs"]),
    }
    overrides = [str(part) for pair in options.items() for part in pair]
    method = build_method(config.load("scfs_released_scenes", overrides)).to(dtype)
    student = {
        f"stu_{part}_{level}": arrays[f"stu_{part}_{level}"].to(dtype).requires_grad_()
        for part in "gl"
        for level in ("final", "l2", "l3", "l4")
    }
    final = torch.cat((student["stu_g_final"], student["stu_l_final"]))
    method.head, method.momentum_head = BySize(final), BySize(arrays["tea_g_final"].to(dtype))
    method.center.copy_(arrays["center_before_final"])
    for level, short in (("layer2", "l2"), ("layer3", "l3"), ("layer4", "l4")):
        method.level_heads[level] = BySize(student[f"stu_g_{short}"], student[f"stu_l_{short}"])
        teacher = (arrays[f"tea_{part}_{short}"].to(dtype) for part in "gl")
        method.momentum_level_heads[level] = BySize(*teacher)
        getattr(method, f"center_{level}").copy_(arrays[f"center_before_{short}"])

    def levels(rows, side):
        maps = torch.rand(rows, 4, side, side, dtype=dtype)
        return dict.fromkeys(("layer2", "layer3", "layer4"), maps)

    method.encode = lambda views: ([levels(4, 4), levels(6, 2)], levels(4, 4))
    step = int(arrays["epoch"]) * method.steps_per_epoch
    values = method([None] * 5, step)
    values["loss"].backward()
    method.after_step(step)
    assert_close(values["loss"], arrays["loss_total_f64"], tolerance)
    assert_close(values["loss/image"], arrays["loss_final_f64"], tolerance)
    assert_close(method.center, arrays["center_after_final_f64"], tolerance)
    for level, short in (("layer2", "l2"), ("layer3", "l3"), ("layer4", "l4")):
        for part in ("global", "local"):
            found = values[f"loss/{part}_{level}"]
            assert_close(found, arrays[f"loss_{short}_{part}_f64"], tolerance)
        found = getattr(method, f"center_{level}")
        assert_close(found, arrays[f"center_after_{short}_f64"], tolerance)
    for name, logits in student.items():
        assert_close(logits.grad, arrays[f"grad_{name}_f64"], tolerance)


def image_loss(method, views, targets):
    """DINO's loss where the head passes logits ``[V B, K]`` and targets ``[2B, K]`` through."""
    B = len(targets) // 2
    method.head = method.momentum_head = lambda x: x
    students = [{"cls": views[: 2 * B]}, {"cls": views[2 * B :]}][: 1 + (len(views) > 2 * B)]
    return method.image_loss(students, {"cls": targets}, 0)[0]


def test_dinos_pairs_of_global_views_can_be_left_out():
    """G_d2G_d of SCFS's Table 7: the mean over all pairs is that over the two and the others."""
    torch.manual_seed(0)
    B, N, K = 3, 4, 256
    views, targets = torch.randn(2 * B + N * B, K), torch.randn(2 * B, K)
    every, without = (
        build_method(config.load("dino_scenes", ["DINO.GLOBAL_PAIRS", str(on)]))
        for on in (True, False)
    )
    for method in (every, without):
        del method.head, method.momentum_head
    both = image_loss(every, views[: 2 * B], targets)
    local = image_loss(without, views, targets)
    torch.testing.assert_close(
        image_loss(every, views, targets), (2 * both + 2 * N * local) / (2 + 2 * N)
    )
    views.requires_grad_()
    nothing = image_loss(without, views[: 2 * B], targets)
    nothing.backward()  # a gradient for DDP, of 0
    assert nothing == 0 and not views.grad.any()


def test_scfs_without_local_crops_has_the_search_alone():
    method = build_method(config.load("scfs_wo_mc_r50_in100_200ep_scenes")).train()
    images = torch.randn(2, 4, 3, 64, 64)
    values = method([plain_view(image) for image in images], 0)
    local = [values[f"loss/local_layer{n}"] for n in (2, 3, 4)]
    assert values["loss/image"] == 0 and not any("global" in name for name in values)
    torch.testing.assert_close(values["loss"].detach(), 0.5 * sum(local))
    with pytest.raises(InputError, match="GLOBAL_PAIRS is False and VIEWS.LOCAL_CROPS is 0"):
        words = ["DATA.PATH", "x", "DINO.GLOBAL_PAIRS", "False"]
        config.validate(config.load("dino_wo_mc_r50_in100_200ep", words))


def test_crops_are_encoded_in_their_order_one_pass_a_resolution():
    arrays = load("dino/multicrop_wrapper.npz")
    method = build_method(config.load("dino_scenes"))
    passes = []

    class Mean(nn.Module):
        def forward(self, images):
            passes.append(images.shape)
            return {"layer4": images}

    method.backbone, method.momentum_backbone = Mean(), Mean()
    students, teacher = method.encode([plain_view(arrays[f"view_{n}"]) for n in range(4)])
    out = torch.cat([pooled(levels) for levels in students])
    assert [shape[-1] for shape in passes] == [8, 4, 8]  # the student's two, the teacher's one
    expected = torch.cat([arrays[f"view_{n}"].mean((2, 3)) for n in range(4)])
    torch.testing.assert_close(out, expected)
    assert arrays["out"].shape == out.shape and pooled(teacher).shape == (4, 3)


def test_the_last_layer_rests_in_the_first_epochs():
    method = build_method(config.load("dino_scenes", ["DINO.FREEZE_LAST_LAYER", "1"]))
    method.steps_per_epoch = 3
    for step, rests in ((0, True), (2, True), (3, False)):
        weight = method.head.last_layer.weight_v
        weight.grad = torch.ones_like(weight)
        method.after_backward(step)
        assert (weight.grad is None) is rests


def test_a_vits_teacher_drops_no_path_and_starts_as_the_student():
    method = build_method(config.load("dino_vit_small_scenes"))
    student = [m.drop_prob for m in method.backbone.modules() if type(m).__name__ == "DropPath"]
    teacher = [
        m.drop_prob for m in method.momentum_backbone.modules() if type(m).__name__ == "DropPath"
    ]
    assert max(student) == pytest.approx(0.1) and not any(teacher)
    for name, value in method.backbone.state_dict().items():
        assert torch.equal(value, method.momentum_backbone.state_dict()[name])


def crop(x1, y1, x2, y2, flip=False, side=32):
    box = torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)
    image = torch.empty(1, 3, side, side)
    return View(image, box, torch.tensor([flip]), torch.tensor([[100.0, 100.0]]))


@pytest.mark.parametrize(
    ("inner", "outer", "box", "share"),
    [
        (crop(10, 20, 50, 60), crop(10, 20, 50, 60), (0, 0, 32, 32), 1.0),
        (crop(20, 30, 30, 40), crop(10, 20, 50, 60), (8, 8, 16, 16), 1.0),
        (crop(20, 30, 30, 40), crop(10, 20, 50, 60, flip=True), (16, 8, 24, 16), 1.0),
        (crop(20, 30, 30, 40, flip=True), crop(10, 20, 50, 60), (8, 8, 16, 16), 1.0),
        (crop(0, 20, 20, 60), crop(10, 20, 50, 60), (0, 0, 8, 32), 0.5),
        (crop(0, 0, 5, 5), crop(50, 50, 90, 90), (0, 0, 0, 0), 0.0),
    ],
)
def test_where_a_crop_lies_in_another_view(inner, outer, box, share):
    boxes, shares = crop_in_view(inner, outer)
    torch.testing.assert_close(boxes[0], torch.tensor(box, dtype=torch.float32))
    assert shares.item() == pytest.approx(share)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["SCFS.LEVELS", "('layer5',)"], r"SCFS.LEVELS is \('layer5',\); it must be some of"),
        (["SCFS.LEVELS", "('block4',)"], r"levels of resnet18"),
        (["SCFS.TARGET", "roi", "VIEWS.LOCAL_CROPS", "0"], r"VIEWS.LOCAL_CROPS above 0"),
    ],
)
def test_what_scfs_cannot_do_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        config.validate(config.load("scfs_scenes", ["DATA.PATH", "somewhere", *overrides]))


def test_the_logits_are_in_full_precision_under_autocast():
    """A cosine rounded to bfloat16 would move a logit, which is divided by 0.04, by a tenth."""
    torch.manual_seed(0)
    head = DINOHead({"layer4": 12}, config.load("dino_scenes").DINO)
    x = torch.randn(4, 12)
    exact = head.last_layer(torch.nn.functional.normalize(x.repeat(1, 3)[:, :32]))
    with torch.autocast("cpu", torch.bfloat16):
        found = head.last_layer(torch.nn.functional.normalize(x.repeat(1, 3)[:, :32]))
    assert found.dtype == torch.float32 and torch.equal(found, exact)
