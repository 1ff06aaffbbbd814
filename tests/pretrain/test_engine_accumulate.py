"""SOLVER.ACCUMULATE: a step that is computed in parts is the same step."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from densessl.core import distributed
from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.backbones.norm import SplitBatchNorm2d, SyncBatchNorm, slow_
from densessl.pretrain.engine.build import build_model
from densessl.pretrain.engine.placement import distribute
from densessl.pretrain.engine.step import Stepper
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import METHODS
from densessl.pretrain.methods.base import built_on
from densessl.pretrain.views import View
from tests.pretrain.test_distributed import in_processes

CPU = torch.device("cpu")
IMAGES, SIDE, STEPS = 8, 64, 3
FIELDS = ("image", "box", "flip", "size")
OPTIONS = {
    "SOLVER.BATCH_SIZE": IMAGES,
    "SOLVER.REFERENCE_BATCH": IMAGES,
    "VIEWS.SIZE": SIDE,
    "BACKBONE.GROUP_SIZE": 2,
    "MOCO.QUEUE": 12,  # not a multiple of the batch: its end is crossed
    "MOCO.DIM": 8,
    "MOCO.HIDDEN": 8,
    "DENSE.DIM": 8,
    "DENSE.HIDDEN": 8,
    "SIMSIAM.DIM": 8,
    "SIMSIAM.HIDDEN": 8,
    "SIMSIAM.PREDICTOR_HIDDEN": 8,
    "BYOL.DIM": 8,
    "BYOL.HIDDEN": 8,
    "PIXPRO.DIM": 8,
    "PIXPRO.HIDDEN": 8,
    "PIXPRO.INSTANCE_WEIGHT": 1.0,
    "RESIM.FPN_DIM": 8,
    "VADER.DIM": 8,
    "DINO.PROTOTYPES": 16,
    "DINO.HIDDEN": 8,
    "DINO.BOTTLENECK": 8,
    "SCFS.DIM": 8,
}
RUNS = {
    "moco": {"MOCO.SYMMETRIC": True, "MOCO.SYMMETRIC_ENQUEUE": "second"},
    "setsim": {"MOCO.SYMMETRIC": True, "SOLVER.CLIP_NORM": 0.5},
    "densecl": {},
    "houghcl": {},
    "vader": {},
    "dense": {},
    "simsiam": {},
    "dense_simsiam": {},
    "setsim_simsiam": {},
    "byol": {},
    "pixpro": {},
    "distill": {},
    "dino": {"VIEWS.LOCAL_CROPS": 2, "DINO.FREEZE_LAST_LAYER": 0},
    "scfs": {"VIEWS.LOCAL_CROPS": 2, "SCFS.LEVELS": ("layer3", "layer4")},
}


class Pyramid(nn.Module):
    """A small network with a ResNet's levels, and group norm."""

    def __init__(self):
        super().__init__()
        self.channels = {f"layer{n}": 8 for n in range(1, 5)}
        self.stem = nn.Conv2d(3, 8, 4, 2, 1)
        for level in self.channels:
            self.add_module(level, nn.Sequential(nn.Conv2d(8, 8, 2, 2), nn.GroupNorm(2, 8)))

    def forward(self, images):
        x, levels = self.stem(images), {}
        for level in self.channels:
            x = levels[level] = getattr(self, level)(x).relu()
        return levels


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def options_of(method, parts, **more):
    chosen = OPTIONS | RUNS.get(method, {}) | {"METHOD.NAME": method, "SOLVER.ACCUMULATE": parts}
    return config.load(overrides=[str(w) for pair in (chosen | more).items() for w in pair])


def views_of(step, local):
    """Crops of one square around its middle, so that any two show a common part."""
    generator = torch.Generator().manual_seed(step)

    def view(side):
        near, far = 40 * torch.rand(2, IMAGES, 2, generator=generator)
        box = torch.cat((near, 100 - far), 1)
        flip = torch.rand(IMAGES, generator=generator) > 0.5
        image = torch.rand(IMAGES, 3, side, side, generator=generator)
        return View(image, box, flip, torch.full((IMAGES, 2), 100.0))

    return [view(SIDE) for _ in range(2)] + [view(SIDE // 2) for _ in range(local)]


def in_parts(views, number):
    """Those of this process, each part when it is asked for."""
    images = distributed.mine(torch.arange(IMAGES))
    for own in images.chunk(number):
        yield [View(*(getattr(view, name)[own] for name in FIELDS)) for view in views]


def built(cfg, network):
    with built_on(copy.deepcopy(network)):
        method, optimizer = build_model(cfg, CPU)
    method.steps, method.steps_per_epoch = 20, 2
    model, solver = distribute(method, CPU), cfg.SOLVER
    limits = solver.CLIP_EACH, solver.CLIP_NORM
    return method, Stepper(method, model, optimizer, CPU, "off", *limits, solver.ACCUMULATE)


def trained(name, parts, sums=None):
    """Values of each step, gradients of the last, and the method's state, without batch norm's
    statistics of a batch. ``sums`` (of several processes) gets a line each time that they add
    their gradients."""
    torch.manual_seed(0)
    cfg = options_of(name, parts)
    config.check_method(cfg, METHODS[name])
    method, stepper = built(cfg, Pyramid())
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    if sums is not None:
        stepper.model.register_comm_hook(sums, counted)
    method.before_step(0)
    values = []
    for step in range(STEPS):
        views = in_parts(views_of(step, cfg.VIEWS.LOCAL_CROPS), parts)
        outcome = stepper.launch(views, step, lr=0.01).outcome()
        assert outcome.applied
        losses = {k: v for k, v in outcome.values.items() if not k.startswith("stat/")}
        values.append(losses)
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return values, gradients, dict(method.state_dict())


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in ("distill", "scfs"))) for n in RUNS],
)
def test_two_and_four_parts_are_the_whole_step(double, tmp_path, monkeypatch, name):
    if name == "distill":
        torch.save(torchvision.models.resnet18().float().state_dict(), tmp_path / "teacher.pth")
        monkeypatch.setitem(OPTIONS, "DISTILL.TEACHER", str(tmp_path / "teacher.pth"))
    values, gradients, state = trained(name, 1)
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients.values())
    for parts in (2, 4):
        found = trained(name, parts)
        assert found[0] == [pytest.approx(each, rel=0, abs=1e-12) for each in values]
        torch.testing.assert_close(found[1], gradients, rtol=0, atol=1e-12)
        torch.testing.assert_close(found[2], state, rtol=0, atol=1e-12)


def counted(sums, bucket):
    sums.append(bucket.index())
    return allreduce_hook(None, bucket)


def shared():
    """Gradients and state after steps of this process's images, and DDP's sums of gradients."""
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    sums = []
    _, gradients, state = trained("moco", 2, sums)
    return {"gradients": gradients, "state": state, "sums": torch.tensor(len(sums))}


@pytest.mark.slow
def test_processes_add_their_gradients_once_a_step(double, tmp_path):
    _, gradients, state = trained("moco", 1)
    for found in in_processes(tmp_path, 2, shared):
        assert found["sums"] == STEPS  # all gradients are one bucket
        torch.testing.assert_close(found["gradients"], gradients, rtol=0, atol=1e-12)
        torch.testing.assert_close(found["state"], state, rtol=0, atol=1e-12)


def test_every_method_says_whether_it_takes_parts():
    assert {name for name, method in METHODS.items() if method.accumulates} == set(RUNS)


class Line(nn.Module):
    """The smallest method: loss = w · view; it keeps the views."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))
        self.kept, self.entered = {}, []

    def forward(self, views, step):
        self.seen += 1
        self.kept = {"keys": views[0][None]}
        return {"loss": self.w * views[0]}

    def ddp_ignored(self):
        return []

    def before_step(self, step):
        pass

    def after_backward(self, step):
        pass

    def after_step(self, step):
        self.entered.append(self.kept["keys"].tolist())


def line(parts, amp="off"):
    method = Line()
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    return method, Stepper(method, method, optimizer, CPU, amp, parts=parts)


def of(*numbers):
    return ([torch.tensor(number)] for number in numbers)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_bad_part_leaves_out_the_whole_step(amp):
    method, stepper = line(2, amp)
    outcome = stepper.launch(of(math.nan, 1.0), 0, lr=0.1).outcome()
    assert not outcome.applied and not outcome.overflow and math.isnan(outcome.values["loss"])
    assert (method.w.item(), method.seen.item(), method.entered) == (1.0, 0.0, [])
    outcome = stepper.launch(of(3.0, 1.0), 1, lr=0.1).outcome()
    assert outcome.values["loss"] == outcome.values["grad_norm"] == 2.0  # unscaled once
    assert method.w.item() == pytest.approx(0.8)
    assert (method.seen.item(), method.entered) == (2.0, [[3.0, 1.0]])


def test_only_one_part_is_in_memory(double):
    """Of what autograd keeps for the backward pass, the most at any moment."""

    class Held:
        now = most = 0

        def __init__(self, tensor):
            self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
            Held.now += self.bytes
            Held.most = max(Held.most, Held.now)

        def __del__(self):
            Held.now -= self.bytes

    most = {}
    for parts in (1, 4):
        method, stepper = built(options_of("moco", parts), Pyramid())
        Held.most = Held.now
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            stepper.launch(in_parts(views_of(0, 0), parts), 0, lr=0.01)
        most[parts] = Held.most
    assert most[4] < 0.3 * most[1]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, SyncBatchNorm, lambda c: SplitBatchNorm2d(c, 2)])
def test_running_statistics_move_as_far_in_parts_as_in_one(norm):
    x = torch.rand(4, 3, 5, 5)
    whole, parts = norm(3), norm(3)
    slow_(parts, 4)
    for _ in range(3):
        whole(x)
    for _ in range(12):
        parts(x)
    torch.testing.assert_close(parts.running_mean, whole.running_mean)
    torch.testing.assert_close(parts.running_var, whole.running_var)


def test_a_run_in_parts_resumes_bit_for_bit(tiny, check_same_run):
    """Killed after the step behind a checkpoint."""
    options = ("SOLVER.ACCUMULATE", 2, "DENSE.CORRESPONDENCE", "random", "VIEWS.SIZE", 40)
    options += ("SOLVER.MAX_STEPS", 3, "CHECKPOINT.STEPS", 2)
    whole, again = (tiny("dense", None, *options) for _ in range(2))
    train(whole)
    text = (Path(whole.OUTPUT_DIR) / "log.txt").read_text()
    assert "each step in 2 parts of 4 images" in text

    def killed(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(again, after_step=killed)
    train(again)
    check_same_run(again.OUTPUT_DIR, whole.OUTPUT_DIR)


@pytest.mark.parametrize("name", ["simclr", "swav", "resim"])
def test_what_compares_the_images_of_a_step_is_refused(name):
    with pytest.raises(InputError, match=f"ACCUMULATE is 2, but {name} needs all images.* moco,"):
        config.check_method(options_of(name, 2), METHODS[name])
    config.check_method(options_of(name, 1), METHODS[name])


@pytest.mark.parametrize(
    ("batch", "parts", "world", "words"),
    [
        (12, 5, 1, "12 images a process.*allowed: 1, 2, 3, 4, 6$"),
        (12, 12, 1, "parts of 2 images or more; allowed: 1, 2, 3, 4, 6$"),
        (12, 4, 2, "6 images a process.*allowed: 1, 2, 3$"),
    ],
)
def test_parts_that_the_batch_does_not_have_are_refused(batch, parts, world, words):
    options = {"SOLVER.BATCH_SIZE": batch, "BACKBONE.NORM": "BN", "DATA.PATH": "x"}
    with pytest.raises(InputError, match=f"^SOLVER.ACCUMULATE is {parts}, but .*{words}"):
        config.check(options_of("moco", parts, **options), world)


def test_groups_of_batch_norm_are_those_of_a_part():
    options = {"SOLVER.BATCH_SIZE": 24, "BACKBONE.GROUP_SIZE": 4, "DATA.PATH": "x"}
    config.check(options_of("moco", 3, **options))
    assert config.normalisation_groups(options_of("moco", 3, **options), 1) == 2
    with pytest.raises(InputError, match="6 images a process and part: .*nearest batch: 16 or 32"):
        config.check(options_of("moco", 4, **options))
