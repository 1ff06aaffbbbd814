"""Methods: MoCo's and SetSim's official numbers, the order of a step, every preset."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densessl.core.errors import InputError
from densessl.pretrain import config
from densessl.pretrain.correspondence import Pair, nearest, one_hot, salient, set_to_set
from densessl.pretrain.engine.optimizers import build_optimizer
from densessl.pretrain.methods import METHODS, build_method
from densessl.pretrain.methods.heads import DenseProjector, Projector, Queue
from densessl.pretrain.methods.momentum import ema_update_
from densessl.pretrain.views import View
from tests.pretrain.test_methods_runs import SMALL_BACKBONE

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ["BACKBONE.NAME", "resnet18", "MOCO.QUEUE", "32", "BACKBONE.GROUP_SIZE", "2"]


class PassThrough(nn.Module):
    """A backbone whose feature map is its input."""

    def forward(self, images):
        return {"layer4": images}


def views(images=4, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def view():
        corner = 40 * torch.rand(images, 2, generator=generator)
        box = torch.cat((corner, corner + 60), 1)
        flip = torch.rand(images, generator=generator) > 0.5
        image = torch.randn(images, 3, size, size, generator=generator)
        return View(image, box, flip, torch.full((images, 2), 100.0))

    return [view(), view()]


def step(method, batch, number=0, optimizer=None):
    method.before_step(number)
    values = method(batch, number)
    values["loss"].backward()
    method.after_backward(number)
    if optimizer:
        optimizer.step()
    method.after_step(number)
    return values


# -- official numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["momentum_m0p9", "momentum_m0p999"])
def test_momentum_encoder_moves_as_in_the_official_code(name):
    golden = np.load(GOLDEN / "moco" / f"{name}.npz")
    names = [key[3:] for key in golden.files if key.startswith("q__")]
    moving = [n for n in names if "running" not in n and "tracked" not in n]
    source = [torch.from_numpy(golden[f"q__{n}"]) for n in moving]
    momentum = [torch.from_numpy(golden[f"k0__{n}"]).clone() for n in moving]
    for update in (1, 2, 3):
        ema_update_(momentum, source, float(golden["m"]))
        for n, value in zip(moving, momentum, strict=True):
            torch.testing.assert_close(
                value, torch.from_numpy(golden[f"k{update}__{n}"]), rtol=1e-6, atol=1e-7
            )


def test_queue_fills_and_wraps_as_in_the_official_code():
    golden = np.load(GOLDEN / "moco" / "queue_wrap.npz")
    queue = Queue(32, 8)
    queue.keys.copy_(torch.from_numpy(golden["queue_states"][0].T))
    for number, keys in enumerate(torch.from_numpy(golden["keys"])):
        queue.enqueue(keys)
        assert torch.equal(queue.keys, torch.from_numpy(golden["queue_states"][number + 1].T))
        assert queue.pointer == golden["ptr_states"][number + 1]


def test_queue_takes_batches_that_cross_its_end_or_exceed_it():
    queue, expected = Queue(5, 2), torch.zeros(5, 2)
    queue.keys.zero_()
    for start, count in ((0, 3), (3, 4), (7, 12)):
        keys = torch.arange(start, start + count, dtype=torch.float32)[:, None].repeat(1, 2)
        for number in range(start, start + count):
            expected[number % 5] = number
        queue.enqueue(keys)
        assert torch.equal(queue.keys, expected)
        assert queue.pointer == (start + count) % 5


def setsim_with_official_state(golden):
    cfg = config.load(
        "setsim_authors",
        [*SMALL, "MOCO.QUEUE", "64", "MOCO.DIM", "16", "DENSE.DIM", "16", "MOCO.SHUFFLE", "False"]
        + ["MOCO.SYMMETRIC", "False", "MOCO.MOMENTUM", "0.99", "SETSIM.GEOMETRY_FRAME", "pixels"],
    )
    method = build_method(cfg)
    method.backbone, method.momentum_backbone = PassThrough(), PassThrough()
    method.projector, method.momentum_projector = Projector(24, 24, 16), Projector(24, 24, 16)
    method.dense_projector = DenseProjector(24, 24, 16)
    method.momentum_dense_projector = DenseProjector(24, 24, 16)
    heads = {
        "encoder_q__0__fc": method.projector,
        "encoder_q__1": method.dense_projector,
        "encoder_k__0__fc": method.momentum_projector,
        "encoder_k__1": method.momentum_dense_projector,
    }
    for prefix, head in heads.items():
        state = {n: torch.from_numpy(golden[f"before__{prefix}__{n.replace('.', '__')}"])
                 for n in head.state_dict()}  # fmt: skip
        head.load_state_dict(state)
    for name, queue in (("queue", method.queue), ("queue2", method.dense_queue)):
        queue.keys.copy_(torch.from_numpy(golden[f"before__{name}"].T))
        queue.pointer.fill_(int(golden[f"before__{name}_ptr"][0]))
    return method.double(), heads


def test_a_whole_setsim_step_gives_the_official_numbers():
    """Losses, gradients, momentum encoder and both queues of the authors' code, in float64."""
    golden = np.load(GOLDEN / "setsim" / "full_forward_attgeo_nn.npz")
    method, heads = setsim_with_official_state(golden)

    def view(letter):
        x1, y1, x2, y2 = torch.from_numpy(golden[f"coord_{letter}"]).double().unbind(1)
        box = torch.stack((torch.minimum(x1, x2), y1, torch.maximum(x1, x2), y2), 1)
        z = torch.from_numpy(golden[f"z_{letter}"]).double()
        return View(z, box, x1 > x2, torch.ones(len(z), 2))

    query, key = view("q"), view("k")
    query.image.requires_grad_()
    values = step(method, [query, key])
    close = {"rtol": 1e-7, "atol": 1e-7}
    for ours, theirs in (("loss/image", "global"), ("loss/dense", "pixel"), ("loss", "total")):
        torch.testing.assert_close(
            values[ours].detach(), torch.tensor(golden[f"loss_{theirs}_f64"]), **close
        )
    torch.testing.assert_close(query.image.grad, torch.from_numpy(golden["grad_z_q_f64"]), **close)
    for prefix in ("encoder_q__0__fc", "encoder_q__1"):
        for name, parameter in heads[prefix].named_parameters():
            theirs = golden[f"grad_{prefix[8:]}__{name.replace('.', '__')}_f64"]
            torch.testing.assert_close(parameter.grad, torch.from_numpy(theirs), **close)
    for prefix in ("encoder_k__0__fc", "encoder_k__1"):
        for name, parameter in heads[prefix].named_parameters():
            theirs = golden[f"after_f64__{prefix}__{name.replace('.', '__')}"]
            torch.testing.assert_close(parameter.detach(), torch.from_numpy(theirs), **close)
    for name, queue in (("queue", method.queue), ("queue2", method.dense_queue)):
        torch.testing.assert_close(queue.keys.T, torch.from_numpy(golden[f"{name}_after_f64"]))
    assert method.queue.pointer == golden["ptr_after_f64"][0]
    assert method.dense_queue.pointer == golden["ptr2_after_f64"][0]
    torch.testing.assert_close(
        values["stat/pairs_geometry"].double(), torch.tensor(golden["geometry_f64"]).double()
    )
    torch.testing.assert_close(
        values["stat/pairs_nearest"].double(), torch.tensor(golden["neighbour_f64"]).double()
    )


# -- behaviour ------------------------------------------------------------------------------------

PRESETS = sorted(config.built_in())
# How long a run is, on what, with which numbers: a step of it is the step of another.
NO_OTHER_STEP = ("DATA.", "SOLVER.", "VIEWS.SCALE", "VIEWS.LOCAL_SCALE", "VIEWS.RECIPE")
NO_OTHER_STEP += ("SETSIM.THRESHOLD", "CHECKPOINT.")


def twin(preset):
    return config.load(f"{preset}_scenes", ["DATA.PATH", "somewhere", "BACKBONE.GROUP_SIZE", "2"])


def with_other_steps():
    found = {}
    for preset in PRESETS:
        options = config.flat(cfg := twin(preset))
        asked = {k: str(v) for k, v in options.items() if not k.startswith(NO_OTHER_STEP)}
        found.setdefault((cfg.SOLVER.OPTIMIZER, *asked.items()), preset)
    return list(found.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_twins_are_valid(preset):  # the presets themselves: test_config.py
    config.validate(twin(preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_twins_are_valid_with_the_sizes_that_a_detector_takes(preset):
    kept = config.sizes_kept(preset)
    words = [str(word) for pair in kept.items() for word in pair]
    config.validate(config.load(f"{preset}_scenes", ["DATA.PATH", "somewhere", *words]))


@pytest.mark.parametrize("preset", with_other_steps())
def test_a_preset_takes_a_step_as_its_twin(preset, teacher):
    """The twin of a config is the same method with a small network, over the scenes' size.

    Here in a ResNet's place one whose steps take next to no time.
    """
    cfg = twin(preset)
    if cfg.BACKBONE.NAME.startswith("resnet"):
        _, cfg.BACKBONE.NAME = SMALL_BACKBONE
    cfg.DISTILL.TEACHER = str(teacher)
    torch.manual_seed(0)
    method = build_method(cfg).train()
    optimizer = build_optimizer(cfg.SOLVER, method.parameter_groups(cfg), lr=0.1)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    batch = views() + [v for _ in range(cfg.VIEWS.LOCAL_CROPS // 2) for v in views(size=32)]
    values = step(method, batch, number=5, optimizer=optimizer)  # SwAV's prototypes rest at first
    assert all(torch.isfinite(value) for value in values.values())
    assert values["loss"].dtype == torch.float32
    assert not any(value.requires_grad for name, value in values.items() if name != "loss")
    queues = [n for n in before if n.endswith(".keys") and not n.startswith("queues.")]
    state = method.state_dict()
    assert not [n for n in queues if torch.equal(state[n], before[n])]  # keys entered every queue
    rests = {n for n, p in method.named_parameters() if p.grad is None}
    assert rests == {n for n, p in method.named_parameters() if not p.requires_grad}


def test_every_method_has_a_preset():
    used = {config.load(preset).METHOD.NAME for preset in PRESETS}
    assert used == METHODS.keys() - {"dense", "dense_simsiam"}


def test_a_preset_says_its_command_and_what_to_expect_first():
    for preset in PRESETS:
        told = config.find(preset)
        head = told.file.read_text().splitlines()[:20]
        named = re.search(r"densessl pretrain --config (\w+) ", head[0])[1]
        assert config.find(named).file == told.file  # of a sweep, one of it
        assert told.about()["description"]
        if re.search(r"_\d+ep$", preset):
            assert told.about()["cost"]["source"] and told.gpu_hours() > 0
            assert any("Published: " in line or "no published number" in line for line in head)


def test_symmetrised_is_the_mean_of_both_directions_against_the_same_queue():
    first, second = views()
    values = {}
    for name, batch, symmetric in (
        ("both", [first, second], "True"),
        ("there", [first, second], "False"),
        ("back", [second, first], "False"),
    ):
        torch.manual_seed(0)
        options = ["MOCO.SYMMETRIC", symmetric, "BACKBONE.NORM", "BN", "MOCO.SHUFFLE", "False"]
        method = build_method(config.load("setsim_paper", SMALL + options)).train()
        values[name] = step(method, batch)["loss"].detach()
        enqueued = int(method.queue.pointer)
        assert enqueued == (8 if symmetric == "True" else 4)
    torch.testing.assert_close(values["both"], (values["there"] + values["back"]) / 2)


def test_keys_of_a_step_are_never_its_own_negatives():
    torch.manual_seed(0)
    method = build_method(config.load("moco_v2", SMALL)).train()
    batch = views()
    before = method.queue.keys.clone()
    method(batch, 0)["loss"].backward()
    assert torch.equal(before, method.queue.keys)  # until the step is over
    method.after_step(0)
    assert not torch.equal(before[:4], method.queue.keys[:4])
    assert torch.equal(before[4:], method.queue.keys[4:])


def test_the_correspondence_is_the_union_of_set_geometry_and_nearest():
    torch.manual_seed(0)
    z_q, z_k = torch.rand(2, 8, 3, 3), torch.rand(2, 8, 3, 3)
    query, key = views(images=2)
    options = ["SETSIM.GEOMETRY_THRESHOLD", "0", "SETSIM.NEAREST", "False"]
    only_sets = build_method(config.load("setsim_paper", SMALL + options))
    sets = set_to_set(salient(z_q), salient(z_k))
    pair = Pair(z_q, z_k, query, key)
    c, stats = only_sets.correspond(pair, None, None)
    assert torch.equal(c, sets)
    assert stats["stat/pairs_geometry"] == stats["stat/pairs_nearest"] == 0

    full = build_method(config.load("setsim_paper", SMALL))
    c, stats = full.correspond(pair, None, None)
    assert (c | sets).equal(c)
    neighbours = one_hot(nearest(z_q, z_k), 9) & salient(z_q)[:, :, None]
    assert (c | neighbours).equal(c)
    total = sum(stats[f"stat/pairs_{part}"] for part in ("set", "geometry", "nearest"))
    assert total == c.sum() / 2


def test_the_dense_weight_warms_up():
    torch.manual_seed(0)
    method = build_method(config.load("setsim_paper", [*SMALL, "DENSE.WARMUP_STEPS", "2"])).train()
    batch = views()
    early, late = method(batch, 1), method(batch, 2)
    torch.testing.assert_close(early["loss"], early["loss/image"])
    torch.testing.assert_close(late["loss"], (late["loss/image"] + late["loss/dense"]) / 2)


def test_shuffling_is_a_function_of_seed_step_and_direction():
    method = build_method(config.load("moco_v2", SMALL))
    first = method.permutation(3, 0, 16)
    assert torch.equal(first, method.permutation(3, 0, 16))
    assert first.sort().values.tolist() == list(range(16))
    others = [method.permutation(4, 0, 16), method.permutation(3, 1, 16)]
    method.cfg.SEED = 1
    others.append(method.permutation(3, 0, 16))
    assert not any(torch.equal(first, other) for other in others)


def test_shuffling_changes_nothing_but_the_normalisation_groups():
    """With one group for the whole batch, keys are the same with and without ShuffleBN."""
    keys = []
    for shuffle in ("True", "False"):
        torch.manual_seed(0)
        options = ["MOCO.SHUFFLE", shuffle, "BACKBONE.NORM", "BN"]
        method = build_method(config.load("moco_v2", SMALL + options)).train()
        step(method, views())
        keys.append(method.queue.keys[:4].clone())
    torch.testing.assert_close(*keys, rtol=1e-4, atol=1e-5)


def test_only_the_backbone_is_exported_under_torchvisions_names():
    method = build_method(config.load("setsim_paper", SMALL))
    names = set(method.backbone_state())
    assert "conv1.weight" in names and "layer4.1.bn2.running_var" in names
    assert not any("fc" in name or "backbone" in name for name in names)
    assert method.fpn_state() is None


def test_autocast_leaves_losses_in_float32():
    torch.manual_seed(0)
    method = build_method(config.load("setsim_paper", SMALL)).train()
    batch = views()
    exact = method(batch, 0)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        values = method(batch, 0)
    assert values["loss"].dtype == torch.float32
    assert abs(values["loss"] - exact) < 0.1
    values["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'setsim'"):
        build_method(config.load("moco_v2", ["METHOD.NAME", "setsym"]))


def test_a_dense_projector_without_hidden_layer_is_one_convolution():
    projector = DenseProjector(24, 0, 16)
    assert [type(layer) for layer in projector] == [nn.Conv2d]
    assert projector(torch.rand(2, 24, 3, 3)).std() > 0.01


def test_setsim_without_any_correspondence_is_refused():
    options = ["SETSIM.SET", "False", "SETSIM.GEOMETRY_THRESHOLD", "0"]
    rows = ["SETSIM.NEAREST_ROWS", "valid"]
    with pytest.raises(InputError, match="no position has a positive"):
        build_method(config.load("setsim_paper", SMALL + options + rows))
    build_method(config.load("setsim_paper", SMALL + options))  # nearest neighbours alone will do
