"""A step as a GPU is asked for it, without one: who waits for it, and how often it is called.

The forward pass runs on fake tensors of device ``cuda``, where whatever needs a number of one
(``item``, ``nonzero``, a mask as an index) raises, and so does a tensor left on the CPU. The whole
step, with backward pass and optimizer, runs on ``meta``, where the same holds. Nothing is computed.
"""

import contextlib
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeWork, Work
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densessl.pretrain import config
from densessl.pretrain.engine.step import Stepper
from densessl.pretrain.methods import build_method
from densessl.pretrain.views import View

IMAGES = 4
META, CUDA = torch.device("meta"), torch.device("cuda")
FAKE = FakeTensorMode()  # one for all: constants are kept from one call to the next
COPIES = ("aten::copy_", "aten::_to_copy")


def options_of(preset, world=1):
    options = {
        "BACKBONE.NAME": "resnet18",
        "BACKBONE.GROUP_SIZE": 2,
        "SOLVER.BATCH_SIZE": IMAGES * world,
        "VIEWS.SIZE": 64,
        "VIEWS.LOCAL_SIZE": 32,
        "AMP": "off",
        "CHANNELS_LAST": "on",
    }
    return config.load(preset, [str(word) for pair in options.items() for word in pair])


def views_of(cfg, device):
    def view(side):
        image = torch.zeros(IMAGES, 3, side, side, device=device)
        box, size = torch.zeros(IMAGES, 4, device=device), torch.ones(IMAGES, 2, device=device)
        return View(image, box, torch.zeros(IMAGES, dtype=torch.bool, device=device), size)

    sides = [cfg.VIEWS.SIZE] * 2 + [cfg.VIEWS.LOCAL_SIZE] * cfg.VIEWS.LOCAL_CROPS
    return [view(side) for side in sides]


def devices(values):
    return {each.device.type for each in tree_leaves(values) if isinstance(each, torch.Tensor)}


class Calls(TorchDispatchMode):
    """Counts what a device is asked for, and notes copies between it and the CPU that are waited
    for; collectives are counted and not run."""

    def __init__(self):
        super().__init__()
        self.launches, self.collectives, self.waits = 0, [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name
        if function.namespace == "c10d":
            self.collectives.append(name)
            done = Work.boxed(FakeWork())
            return done if name == "c10d::alltoall_base_" else (args[0], done)
        made = function(*args, **kwargs)
        where, given = devices(made), devices((args, kwargs))
        if (where | given) - {"cpu"} and not function.is_view:
            self.launches += 1
            at_once = name in COPIES and not (kwargs.get("non_blocking") or args[2:] == (True,))
            if at_once and (where == {"cpu"} or "cpu" in given):
                self.waits.append(f"{name} of {[list(a.shape) for a in args[:1]]}")
        return made


@contextlib.contextmanager
def ranks(count):
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


class Heeding(torch.optim.SGD):
    """In place of fused optimizers, which do not exist on meta; their step is one kernel or two."""

    def step(self, closure=None):
        assert devices(self.found_inf) == {"meta"}
        del self.found_inf
        return super().step(closure)


def on_meta(preset, world=1, steps=2):
    """The calls of the last of the steps: the optimizer's state is then there."""
    cfg = options_of(preset, world)
    with META:
        method = build_method(cfg)
        optimizer = Heeding(
            method.parameter_groups(cfg), momentum=0.9, weight_decay=1e-4, foreach=True
        )
    method.steps, method.steps_per_epoch = 1000, 100
    limits = {"clip_each": cfg.SOLVER.CLIP_EACH, "clip_norm": 1.0}
    stepper = Stepper(method, method, optimizer, META, **limits, ahead=True)
    method.before_step(0)
    for step in range(steps):
        with Calls() as calls:
            stepper.launch([views_of(cfg, META)], step, lr=0.1, asked=(False, False))
    return calls


# Launches from the views to the queue and the momentum encoder of the next step, backward pass and
# optimizer left out, with ResNet-18 in two groups of batch norm, as counted; a tenth more passes.
LAUNCHES = {
    "moco_v2": 923,
    "densecl": 1181,
    "setsim_paper": 2765,
    "setsim_simsiam": 1127,
    "simsiam": 372,
    "byol": 582,
    "pixpro": 820,
    "vader": 1290,
    "resim_fpn": 1899,
    "simclr": 198,
    "swav": 497,
    "dino": 816,
    "scfs": 2070,
}


def as_fake(method):
    """``method`` with fake tensors of device ``cuda``; a deep copy of one would be of its own mode,
    so they come when all encoders are there."""
    for module in method.modules():
        for name, p in module._parameters.items():
            if p is not None:
                fake = torch.empty(p.shape, dtype=p.dtype, device=CUDA)
                module._parameters[name] = torch.nn.Parameter(fake, p.requires_grad)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=CUDA)
    return method


@pytest.fixture
def h100(monkeypatch):
    """What is asked of a GPU's properties."""
    found = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.mark.parametrize("preset", LAUNCHES)
def test_nothing_in_a_forward_pass_waits_for_the_gpu(preset, h100):
    cfg = options_of(preset)
    with META:
        method = build_method(cfg).train()
    method.steps, method.steps_per_epoch = 1000, 100
    with FAKE, warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
        as_fake(method).before_step(0)
        with Calls() as calls:
            outputs = method(views_of(cfg, CUDA), 0)
            method.after_step(0)
            method.before_step(1)
    assert devices(outputs) == {"cuda"}
    assert calls.waits == []
    assert calls.launches < 1.1 * LAUNCHES[preset]


def test_the_rehearsal_finds_what_waits():
    with FAKE:
        x = torch.zeros(3, device=CUDA)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
        with Calls() as calls:
            torch.zeros(3).to(CUDA)
            x.cpu()
            torch.zeros(3).to(CUDA, non_blocking=True)
        assert len(calls.waits) == 2


def test_a_whole_step_with_backward_pass_and_optimizer_waits_for_nothing():
    calls = on_meta("swav")
    assert calls.waits == []
    assert calls.launches < 1.1 * 738  # as counted


@pytest.mark.parametrize("world", [8, 64])
def test_the_collectives_of_a_step_are_the_same_on_any_number_of_ranks(world):
    """MoCo's: ShuffleBN there and back, one vote for all questions, the keys."""
    with ranks(world):
        calls = on_meta("moco_v2", world, steps=1)
    assert calls.collectives == [
        *["c10d::alltoall_base_"] * 2,
        "c10d::allreduce_",
        "c10d::allgather_",
    ]
    assert calls.waits == []
