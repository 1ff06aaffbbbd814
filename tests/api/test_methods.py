"""``densessl.create_method``: options as keywords, any backbone, and the same steps as a run's."""

import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from densessl import InputError, create_method, list_methods, load_backbone
from densessl.pretrain import config
from densessl.pretrain.engine.build import build_model
from densessl.pretrain.engine.step import Stepper
from densessl.pretrain.methods import METHODS
from densessl.views import ViewTransform, collate_views

SMALL = {"queue": 32, "moco_dim": 8, "dense_dim": 8, "moco_hidden": 0, "dense_hidden": 0}


@pytest.fixture(scope="module")
def views(pictures):
    torch.manual_seed(0)
    transform = ViewTransform("moco_v2", size=64)
    return collate_views([transform(Image.open(path)) for path in sorted(pictures.iterdir())[:4]])


def test_methods_are_listed_by_a_pattern():
    assert list_methods() == sorted(METHODS)
    assert list_methods("*simsiam") == ["dense_simsiam", "setsim_simsiam", "simsiam"]


def test_a_loop_of_ones_own_takes_the_steps_of_a_run(views):
    """Backbone, queues and momentum encoder are the engine's after the same three batches."""
    options = {name.upper().replace("_", ".", 1): value for name, value in SMALL.items()}
    options = {"MOCO.QUEUE" if name == "QUEUE" else name: v for name, v in options.items()}
    options |= {"METHOD.NAME": "setsim", "BACKBONE.NAME": "resnet18", "SOLVER.WEIGHT_DECAY": 0}
    cfg = config.load(overrides=[str(part) for pair in options.items() for part in pair])
    torch.manual_seed(1)
    theirs, optimizer = build_model(cfg, torch.device("cpu"))
    theirs.before_step(0)
    stepper = Stepper(theirs, theirs, optimizer, torch.device("cpu"))
    ours = create_method("setsim", "resnet18", **SMALL)
    ours.load_state_dict(theirs.state_dict())
    sgd = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], 0.1, momentum=0.9)
    for step in range(3):
        stepper.launch([views], step, 0.1)
        loss = ours(views)["loss"]
        sgd.zero_grad()
        loss.backward()
        ours.backward_done()
        sgd.step()
        ours.step_done()
    state = theirs.state_dict()
    assert [n for n, tensor in ours.state_dict().items() if not torch.equal(tensor, state[n])] == []


class Dense(nn.Module):
    """A user's own: one map."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 9, 16), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        return self.layers(images)


@pytest.mark.parametrize(
    "make",
    [
        torchvision.models.resnet18,
        lambda: timm.create_model("resnet18", features_only=True),
        lambda: load_backbone("resnet18"),
        lambda: load_backbone("resnet18", features_only=True),
        Dense,
    ],
    ids=["torchvision", "timm", "load_backbone", "features_only", "own"],
)
def test_any_backbone_is_trained_in_place(views, make):
    network = make()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    mode = network.training
    method = create_method("densecl", network, **SMALL)
    assert network.training == mode
    method(views)["loss"].backward()
    torch.optim.SGD(method.backbone.parameters(), 0.1).step()
    moved = [
        not torch.equal(old, now) for old, now in zip(before, network.parameters(), strict=True)
    ]
    assert any(moved)
    copies = {id(parameter) for parameter in method.momentum_backbone.parameters()}
    assert not copies & {id(parameter) for parameter in network.parameters()}


def test_a_vit_goes_with_dino(views):
    heads = {"prototypes": 16, "dino_hidden": 8, "bottleneck": 8}
    network = load_backbone("vit_tiny")
    method = create_method("dino", network, steps=10, steps_per_epoch=5, **heads)
    method(views)["loss"].backward()
    method.backward_done()
    assert method.backbone is network and network.cls_token.grad is not None
    assert all(p.grad is None for p in method.head.last_layer.parameters())  # rests for an epoch
    with pytest.raises(InputError, match="it goes with moco"):
        create_method("vader", network)


def test_a_built_in_config_gives_the_defaults():
    method = create_method("setsim_released", Dense(), **SMALL)
    assert method.cfg.METHOD.NAME == "setsim" and method.cfg.SETSIM.STATISTIC == "square_mean"
    assert method.cfg.MOCO.QUEUE == 32


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("setsm", {}, "unknown value 'setsm'.*Did you mean 'setsim'"),
        ("setsim", {"que": 3}, "unknown option 'que' in create_method.*Did you mean 'queue'"),
        ("setsim", {"queue": -1}, "queue in create_method.'setsim'. is -1; it must be at least 1"),
        ("setsim", {"queue": "many"}, "queue in .* is 'many'; it must be a whole number"),
        ("setsim", {"dim": 3}, "dim .* is MOCO.DIM or DENSE.DIM; write moco_dim or dense_dim"),
        ("moco", {"strategy": "sort"}, "unknown option 'strategy'"),
        ("setsim", {"strategy": "sorted"}, "unknown value 'sorted'.*Did you mean 'sort'"),
        ("setsim", {"set": False, "geometry_threshold": 0, "nearest": False}, "no position has a"),
        ("byol", {}, "needs steps"),
        ("dino", {"steps": 10}, "needs steps_per_epoch"),
        ("moco", {"steps": 0}, "steps in .* is 0; it must be a whole number, at least 1"),
        ("moco", {"backbone": nn.Linear(3, 3)}, "backbone .Linear. does not take an image"),
        ("moco", {"backbone": nn.Flatten()}, "backbone .Flatten. gives shapes .*allowed: a map"),
        ("moco", {"backbone": 3}, "backbone is a int"),
        ("moco", {"backbone": "resnet51"}, "unknown value 'resnet51'.*Did you mean 'resnet5"),
        ("moco", {"backbone": Dense(), "backbone_norm": "BN"}, "backbone_norm .* stays as it is"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_built(name, options, says):
    with pytest.raises(InputError, match=says):
        create_method(name, **options)


def test_views_follow_torchs_generator(pictures):
    image = Image.open(sorted(pictures.iterdir())[0])
    transform = ViewTransform("dino", size=48, local_crops=2, local_size=32)

    def make(seed):
        torch.manual_seed(seed)
        return transform(image)

    first, again, other = make(1), make(1), make(2)
    assert [tuple(view.image.shape) for view in first] == [(3, 48, 48)] * 2 + [(3, 32, 32)] * 2
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].image, other[0].image)
    with pytest.raises(InputError, match="unknown recipe 'moco'.*Did you mean"):
        ViewTransform("moco")
    with pytest.raises(InputError, match="takes what ViewTransform gives"):
        collate_views([torch.zeros(2)])
