"""Several processes and one: the same global batch gives the same step.

In float64: batch norm over few values multiplies rounding at every step.
"""

import os
import time
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densessl.core import distributed
from densessl.pretrain import config
from densessl.pretrain.backbones import SyncBatchNorm
from densessl.pretrain.methods import build_method
from densessl.pretrain.views import View

IMAGES = 8
SIDE = 64  # pixels: 2 x 2 positions of layer4
SMALL = f"{Path(__file__).parents[2] / 'benchmarks' / 'small_backbone.py'}:Small"
TIMEOUT = 1800  # seconds until two processes that wait for each other are given up


def global_views(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def view():
        corner = 40 * torch.rand(IMAGES, 2, generator=generator)
        box = torch.cat((corner, corner + 60), 1)
        flip = torch.rand(IMAGES, generator=generator) > 0.5
        image = torch.randn(IMAGES, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
        return View(image, box, flip, torch.full((IMAGES, 2), 100.0))

    return [view(), view()]


def mine(view):
    parts = (view.image, view.box, view.flip, view.size)
    return View(*(distributed.mine(part) for part in parts))


def train(preset, options, steps=2):
    """Losses (global mean), queue, weights and running statistics after a few steps."""
    torch.set_num_threads(1)
    cfg = config.load(preset, ["BACKBONE.NAME", SMALL, "MOCO.QUEUE", "32", *options])
    torch.manual_seed(0)
    method = build_method(cfg).double().train()
    model = method
    if distributed.world_size() > 1:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            method, method.ddp_ignored()
        )
        model = DistributedDataParallel(method)
    optimizer = torch.optim.SGD(method.parameter_groups(cfg), lr=0.05)
    losses = []
    for number in range(steps):
        batch = [mine(view) for view in global_views(number)]
        method.before_step(number)
        loss = model(batch, number)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(number)
        losses.append(distributed.all_reduce_mean({"loss": float(loss.detach())})["loss"])
    return {
        "losses": torch.tensor(losses),
        "queue": method.queue.keys.clone(),
        "pointer": method.queue.pointer.clone(),
        "weight": method.backbone.last[0].weight.detach().clone(),
        "key_weight": method.momentum_backbone.last[0].weight.detach().clone(),
        "shuffled": distributed.unshuffle(
            distributed.shuffle(distributed.mine(torch.arange(IMAGES)), torch.arange(IMAGES) ^ 5),
            torch.arange(IMAGES) ^ 5,
        ),
        "slice": distributed.shuffle(distributed.mine(torch.arange(IMAGES)), torch.arange(8) ^ 5),
        "gathered": distributed.gather(distributed.mine(torch.arange(IMAGES))),
        "any": torch.tensor(distributed.any_rank(distributed.rank() == 1)),
        "none": torch.tensor(distributed.any_rank(False)),
    }


def sync_norm():
    """Output, gradients and running statistics of SyncBN on this process's samples, in float64."""
    torch.manual_seed(0)
    norm = (SyncBatchNorm if distributed.world_size() > 1 else nn.BatchNorm2d)(3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, towards = torch.randn(2, IMAGES, 3, 5, 4, dtype=torch.float64)
    x = distributed.mine(x).requires_grad_()
    y = norm(x)
    (y * distributed.mine(towards)).sum().backward()
    total = {n: distributed.gather(p.grad[None]).sum(0) for n, p in norm.named_parameters()}
    values = {"y": distributed.gather(y.detach()), "x": distributed.gather(x.grad)}
    return values | total | {f"buffer {n}": b for n, b in norm.named_buffers()}


FRAMEWORKS = {  # whose batch norm spans the processes, and so equals that of one process
    "simsiam": [],
    "byol": [],
    "simclr": [],
    "swav": ["SWAV.QUEUE", "8", "SWAV.QUEUE_START", "0", "SWAV.FREEZE_STEPS", "0"],
    "setsim_simsiam": [],
    "pixpro": ["PIXPRO.INSTANCE_WEIGHT", "1.0"],
}
FAST = ("simclr", "swav")  # whose losses need what other processes have


def train_framework(preset, options, steps=2):
    """Losses (global mean), weights and buffers of a framework after a few steps, float64."""
    torch.set_num_threads(1)
    size = ["SOLVER.BATCH_SIZE", str(IMAGES)]
    cfg = config.load(f"{preset}_scenes", ["BACKBONE.NAME", SMALL, *size, *options])
    torch.manual_seed(0)
    method = build_method(cfg).double().train()
    method.steps = 10
    model = method
    if distributed.world_size() > 1:
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            method, method.ddp_ignored()
        )
        model = DistributedDataParallel(method)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for number in range(steps):
        batch = [mine(view) for view in global_views(number)]
        method.before_step(number)
        loss = model(batch, number)["loss"]
        optimizer.zero_grad()
        loss.backward()
        method.after_backward(number)
        optimizer.step()
        method.after_step(number)
        losses.append(distributed.all_reduce_mean({"loss": float(loss.detach())})["loss"])
    state = {name: value.double() for name, value in method.state_dict().items()}
    return {"losses": torch.tensor(losses), **state}


def _process(rank, world, folder, work, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    try:
        store = torch.distributed.FileStore(str(folder / "store"), world)
        torch.distributed.init_process_group(
            *("gloo", None, timedelta(seconds=TIMEOUT), world, rank, store)
        )
        torch.save(work(*arguments), folder / f"{rank}.pth")
        distributed.barrier()
    except Exception:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        distributed.teardown()


def in_processes(folder: Path, world: int, work, *arguments) -> list[dict]:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["densessl.pretrain.methods", "torch.nn.parallel"])
    processes = [
        context.Process(target=_process, args=(rank, world, folder, work, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + TIMEOUT
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    for process in processes:  # one that waits for a dead partner must not hold up the tests
        if process.is_alive():
            process.kill()
            process.join()
    for rank, process in enumerate(processes):
        failure = folder / f"{rank}.txt"
        assert process.exitcode == 0, failure.read_text() if failure.exists() else process.exitcode
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize(
    "preset", ["moco_v2", pytest.param("setsim_paper", marks=pytest.mark.slow)]
)
def test_one_process_with_split_norm_equals_two_with_shuffled_norm(preset, tmp_path):
    alone = train(preset, ["BACKBONE.GROUP_SIZE", str(IMAGES // 2)])
    ranks = in_processes(tmp_path, 2, train, preset, ["BACKBONE.NORM", "BN"])
    for values in ranks:
        for name in ("losses", "queue", "weight", "key_weight"):
            torch.testing.assert_close(values[name], alone[name], rtol=1e-7, atol=1e-7)
        assert values["pointer"] == alone["pointer"]
        assert torch.equal(values["gathered"], torch.arange(IMAGES))
        assert values["any"] and not values["none"]
    for rank, values in enumerate(ranks):
        expected = torch.arange(IMAGES)[rank::2]
        assert torch.equal(values["shuffled"], expected)
        assert torch.equal(values["slice"], expected ^ 5)
    for name in ("queue", "weight", "key_weight"):
        assert torch.equal(ranks[0][name], ranks[1][name])


def test_sync_norm_of_two_processes_is_batch_norm_of_the_whole_batch(tmp_path):
    alone = sync_norm()
    for values in in_processes(tmp_path, 2, sync_norm):
        assert values.keys() == alone.keys()
        for name, value in values.items():
            torch.testing.assert_close(value, alone[name])


@pytest.mark.parametrize(
    "preset",
    [p if p in FAST else pytest.param(p, marks=pytest.mark.slow) for p in FRAMEWORKS],
)
def test_a_framework_with_synchronised_norms_is_the_same_on_two_processes(preset, tmp_path):
    """Also the negatives of SimCLR, with their gradient, and the balance of SwAV's codes."""
    alone = train_framework(preset, FRAMEWORKS[preset])
    for values in in_processes(tmp_path, 2, train_framework, preset, FRAMEWORKS[preset]):
        torch.testing.assert_close(values, alone, rtol=1e-7, atol=1e-7)


def test_the_loss_depends_on_the_groups_so_that_the_test_above_means_something():
    split = train("moco_v2", ["BACKBONE.GROUP_SIZE", str(IMAGES // 2)], steps=1)
    whole = train("moco_v2", ["BACKBONE.NORM", "BN"], steps=1)
    assert (split["losses"] - whole["losses"]).abs().max() > 1e-3


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.all_reduce_mean({"loss": 2.0}) == {"loss": 2.0}
