"""Several processes and one: the same global batch gives the same step."""

import os
import traceback
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from pretrain import config
from pretrain.engine import distributed
from pretrain.methods import build_method
from pretrain.views import View

IMAGES = 8


def global_views(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def view():
        corner = 40 * torch.rand(IMAGES, 2, generator=generator)
        box = torch.cat((corner, corner + 60), 1)
        flip = torch.rand(IMAGES, generator=generator) > 0.5
        image = torch.randn(IMAGES, 3, 64, 64, generator=generator)
        return View(image, box, flip, torch.full((IMAGES, 2), 100.0))

    return [view(), view()]


def mine(view):
    parts = (view.image, view.box, view.flip, view.size)
    return View(*(distributed.mine(part) for part in parts))


def train(preset, options, steps=2):
    """Losses (global mean), queue, weights and running statistics after a few steps."""
    torch.set_num_threads(1)
    cfg = config.load(preset, ["BACKBONE.NAME", "resnet18", "MOCO.QUEUE", "32", *options])
    torch.manual_seed(0)
    method = build_method(cfg).train()
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
        losses.append(distributed.all_reduce_mean({"loss": float(loss)})["loss"])
    return {
        "losses": torch.tensor(losses),
        "queue": method.queue.keys.clone(),
        "pointer": method.queue.pointer.clone(),
        "weight": method.backbone.layer4[1].conv2.weight.detach().clone(),
        "key_weight": method.momentum_backbone.layer4[1].conv2.weight.detach().clone(),
        "shuffled": distributed.unshuffle(
            distributed.shuffle(distributed.mine(torch.arange(IMAGES)), torch.arange(IMAGES) ^ 5),
            torch.arange(IMAGES) ^ 5,
        ),
        "slice": distributed.shuffle(distributed.mine(torch.arange(IMAGES)), torch.arange(8) ^ 5),
        "gathered": distributed.gather(distributed.mine(torch.arange(IMAGES))),
        "any": torch.tensor(distributed.any_rank(distributed.rank() == 1)),
        "none": torch.tensor(distributed.any_rank(False)),
    }


def _process(rank, world, folder, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    try:
        store = torch.distributed.FileStore(str(folder / "store"), world)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
        torch.save(train(*arguments), folder / f"{rank}.pth")
        distributed.barrier()
    except Exception:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        distributed.teardown()


def in_processes(folder: Path, world: int, *arguments) -> list[dict]:
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=_process, args=(rank, world, folder, arguments))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for rank, process in enumerate(processes):
        failure = folder / f"{rank}.txt"
        assert process.exitcode == 0, failure.read_text() if failure.exists() else process.exitcode
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(world)]


@pytest.mark.parametrize("preset", ["moco_v2", "setsim_paper"])
def test_one_process_with_split_norm_equals_two_with_shuffled_norm(preset, tmp_path):
    alone = train(preset, ["BACKBONE.GROUP_SIZE", str(IMAGES // 2)])
    ranks = in_processes(tmp_path, 2, preset, ["BACKBONE.NORM", "BN"])
    for values in ranks:
        for name in ("losses", "queue", "weight", "key_weight"):
            torch.testing.assert_close(values[name], alone[name], rtol=1e-4, atol=1e-4)
        assert values["pointer"] == alone["pointer"]
        assert torch.equal(values["gathered"], torch.arange(IMAGES))
        assert values["any"] and not values["none"]
    for rank, values in enumerate(ranks):
        expected = torch.arange(IMAGES)[rank::2]
        assert torch.equal(values["shuffled"], expected)
        assert torch.equal(values["slice"], expected ^ 5)
    for name in ("queue", "weight", "key_weight"):
        assert torch.equal(ranks[0][name], ranks[1][name])


def test_the_loss_depends_on_the_groups_so_that_the_test_above_means_something():
    split = train("moco_v2", ["BACKBONE.GROUP_SIZE", str(IMAGES // 2)], steps=1)
    whole = train("moco_v2", ["BACKBONE.NORM", "BN"], steps=1)
    assert (split["losses"] - whole["losses"]).abs().max() > 1e-3


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
    assert distributed.any_rank(True) and not distributed.any_rank(False)
    assert distributed.all_reduce_mean({"loss": 2.0}) == {"loss": 2.0}
