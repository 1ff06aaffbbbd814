"""Sixty-four ranks: the samples, the keys and the statistics of one process with the whole batch.

The ranks are threads of PyTorch's ``threaded`` group, whose collectives carry the data as those of
processes do (its ``fake`` group carries none); all that runs on them is the real thing. In float64.
"""

import copy
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed import multi_threaded_pg as threaded

from densessl.core import distributed
from densessl.core.loader import Loader, Options
from densessl.pretrain import config
from densessl.pretrain.backbones import SplitBatchNorm2d, SyncBatchNorm
from densessl.pretrain.engine.logs import Logs
from densessl.pretrain.engine.order import BatchOrder
from densessl.pretrain.engine.unreadable import gathered
from densessl.pretrain.methods import build_method
from densessl.pretrain.methods.heads import Queue, unit
from densessl.pretrain.views import View

RANKS, EACH = 64, 2
BATCH = RANKS * EACH
SIDE = 64  # pixels: 2 x 2 positions of layer4
SMALL = Path(__file__).parents[2] / "benchmarks" / "small_backbone.py"
METHODS = {  # each with options that make it small; DenseCL has MoCo's queue and one of positions
    "densecl": ["MOCO.QUEUE", str(2 * BATCH), "MOCO.HIDDEN", "16", "DENSE.HIDDEN", "16"],
    "simclr": ["SIMCLR.HIDDEN", "16"],
    "swav": [
        *("SWAV.QUEUE", str(2 * BATCH), "SWAV.QUEUE_START", "0", "SWAV.FREEZE_STEPS", "0"),
        *("SWAV.PROTOTYPES", "20", "SWAV.HIDDEN", "16", "VIEWS.LOCAL_CROPS", "0"),
    ],
    "dino": [
        *("DINO.PROTOTYPES", "32", "DINO.HIDDEN", "16", "DINO.BOTTLENECK", "8"),
        *("VIEWS.LOCAL_CROPS", "0"),
    ],
}


@pytest.fixture
def on_ranks():
    """``on_ranks(work)``: what ``work()`` returns in every rank; the first error ends them all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    threaded._install_threaded_pg()
    torch._C._distributed_c10d._set_thread_isolation_mode(True)  # a registry of groups a thread

    def on_ranks(work):
        store = dist.HashStore()

        def one(rank):
            dist.init_process_group("threaded", rank=rank, world_size=RANKS, store=store)
            try:
                return work()
            except BaseException as error:
                threaded.ProcessLocalGroup.exception_handle(error)
                raise

        with ThreadPoolExecutor(RANKS) as pool:
            futures = [pool.submit(one, rank) for rank in range(RANKS)]
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda each: isinstance(each, SystemExit)):
            raise error
        return [future.result() for future in futures]

    try:
        yield on_ranks
    finally:
        threaded.ProcessLocalGroup.reset()
        torch._C._distributed_c10d._set_thread_isolation_mode(False)
        threaded._uninstall_threaded_pg()
        torch.autograd.set_multithreading_enabled(True)
        torch.set_num_threads(threads)


# ---- the order of samples ----


def images_of(rank, world, first, last, images=1000, batch=BATCH):
    order = BatchOrder(images, batch, seed=3, first=first, last=last, rank=rank, world=world)
    return [[image for _, image in step] for step in order]


def test_each_image_comes_once_an_epoch_over_all_ranks():
    epoch = 1000 // BATCH
    ranks = [images_of(rank, RANKS, 0, 2 * epoch) for rank in range(RANKS)]
    for begin in (0, epoch):
        seen = [i for rank in ranks for step in rank[begin : begin + epoch] for i in step]
        assert len(seen) == len(set(seen)) == epoch * BATCH  # those that fill no batch are left out
    assert [images for rank in ranks for images in rank[0]] != sorted(ranks[0][0])


@pytest.mark.parametrize("world", [1, 8, RANKS, 128])
def test_a_resumed_run_sees_what_was_left_on_any_number_of_ranks(world):
    whole = [images_of(0, 1, step, step + 1)[0] for step in range(12)]
    ranks = [images_of(rank, world, 5, 12) for rank in range(world)]
    for number, batch in enumerate(whole[5:]):
        assert [ranks[place % world][number][place // world] for place in range(BATCH)] == batch


class Numbers(torch.utils.data.Dataset):
    def __getitem__(self, drawn):
        return drawn

    def __len__(self):
        return 1000


@pytest.mark.parametrize("rank", [0, RANKS - 1])
def test_the_number_of_workers_changes_no_rank_s_samples(rank):
    def loaded(workers):
        order = BatchOrder(1000, BATCH, seed=3, first=5, last=11, rank=rank, world=RANKS)
        loader = Loader(Numbers(), list, str, Options(workers), batch_sampler=order)
        with iter(loader) as batches:
            return list(batches)

    alone = loaded(0)
    assert [[image for _, image in batch] for batch in alone] == images_of(rank, RANKS, 5, 11)
    assert loaded(2) == loaded(3) == alone


# ---- the queue ----


@pytest.mark.parametrize("length", [2 * BATCH, 2 * BATCH + 40, BATCH - 28])
def test_the_queue_of_every_rank_is_that_of_one_process_with_the_whole_batch(on_ranks, length):
    """In the order of the global batch, also where its length is no multiple of it."""
    steps = unit(torch.randn(4 * BATCH, 4)).split(BATCH)
    start = Queue(length, 4)
    alone = copy.deepcopy(start)
    for keys in steps:
        alone.enqueue(keys)

    def work():
        queue = copy.deepcopy(start)
        for keys in steps:
            queue.enqueue(distributed.gather(distributed.mine(keys)))
        return queue

    for queue in on_ranks(work):
        assert torch.equal(queue.keys, alone.keys)
        assert torch.equal(queue.pointer, alone.pointer)
    if length % BATCH == 0:
        assert torch.equal(alone.keys, torch.cat(steps[-2:]))


# ---- what is computed over all ranks ----


@functools.cache
def views(step):
    generator = torch.Generator().manual_seed(step)

    def view():
        corner = 40 * torch.rand(BATCH, 2, generator=generator)
        image = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
        flip = torch.rand(BATCH, generator=generator) > 0.5
        return View(image, torch.cat((corner, corner + 60), 1), flip, torch.full((BATCH, 2), 100.0))

    return [view(), view()]


def mine(view):
    parts = (view.image, view.box, view.flip, view.size)
    return View(*(distributed.mine(part) for part in parts))


def steps_of(method, number=2):
    """Losses (global mean), weights and buffers of ``method`` after a few steps."""
    method.steps = 10
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    losses = []
    for step in range(number):
        method.before_step(step)
        loss = method([mine(view) for view in views(step)], step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        trained = [p for p in parameters if p.grad is not None]
        flat = torch.cat([p.grad.flatten() for p in trained])  # what DDP does
        total = distributed.all_reduce_sum(flat) / distributed.world_size()
        for parameter, mean in zip(trained, total.split([p.numel() for p in trained]), strict=True):
            parameter.grad = mean.view_as(parameter)
        method.after_backward(step)
        optimizer.step()
        method.after_step(step)
        losses.append(distributed.all_reduce_mean({"loss": float(loss.detach())})["loss"])
    return {"losses": torch.tensor(losses)} | dict(method.state_dict())


@pytest.mark.parametrize("preset", METHODS)
def test_a_method_on_all_ranks_is_the_method_in_one_process(preset, on_ranks):
    """Keys and their order in the queue, negatives, codes, centres, gradients, ShuffleBN."""
    options = ["BACKBONE.NAME", f"{SMALL}:Small", "SOLVER.BATCH_SIZE", str(BATCH)]

    def built(*words):
        torch.manual_seed(0)
        return build_method(config.load(preset, [*options, *METHODS[preset], *words])).double()

    group = EACH if preset == "densecl" else 2 * EACH  # the others encode both views in one pass
    alone = steps_of(built("BACKBONE.NORM", "split", "BACKBONE.GROUP_SIZE", str(group)).train())
    start = built("BACKBONE.NORM", "BN").train()
    for state in on_ranks(lambda: steps_of(copy.deepcopy(start))):
        assert state.keys() == alone.keys()
        for name, value in state.items():
            if "running" in name and "backbone" in name:
                continue  # each rank has its own, of which DDP takes the first
            torch.testing.assert_close(value, alone[name], rtol=1e-7, atol=1e-7, msg=name)


def test_synchronised_batch_norm_over_all_ranks_is_batch_norm_of_the_whole_batch(on_ranks):
    x, towards = torch.randn(2, BATCH, 3, 5, 4, dtype=torch.float64)

    def work(kind):
        norm = kind(3).double()
        own = distributed.mine(x).clone().requires_grad_()
        y = norm(own)
        (y * distributed.mine(towards)).sum().backward()
        return [
            distributed.gather(y.detach()),
            distributed.gather(own.grad),
            distributed.all_reduce_sum(norm.weight.grad),
            *(buffer.double() for buffer in norm.buffers()),
        ]

    alone = work(nn.BatchNorm2d)
    for values in on_ranks(lambda: work(SyncBatchNorm)):
        for value, expected in zip(values, alone, strict=True):
            torch.testing.assert_close(value, expected)


def test_the_groups_of_split_batch_norm_are_the_ranks(on_ranks):
    x = torch.randn(BATCH, 3, 5, 4, dtype=torch.float64)

    def work():
        norm = nn.BatchNorm2d(3).double()
        y = distributed.gather(norm(distributed.mine(x)).detach())
        over = [
            distributed.all_reduce_sum(b) / RANKS for b in (norm.running_mean, norm.running_var)
        ]
        return [y, *over]

    split = SplitBatchNorm2d(3, group_size=EACH).double()
    expected = [split(x).detach(), split.running_mean, split.running_var]
    for value, wanted in zip(on_ranks(work)[0], expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_a_line_of_metrics_is_the_mean_over_all_ranks(on_ranks, tmp_path):
    def work():
        rank = distributed.rank()
        with Logs(tmp_path, period=2, batch_size=BATCH, start=0) as logs:
            for step in (1, 2):
                values = {"loss": float(rank * step), "bad": float("nan") if rank == 5 else 1.0}
                logs.step(step, values, {"epoch": 0.0, "lr": 0.1}, waited=0.0)

    on_ranks(work)
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line["loss"] == pytest.approx(sum(range(RANKS)) * 1.5 / RANKS)
    assert "bad" not in line


def test_one_rank_stops_all_and_every_rank_hears_of_all_unreadable_images(on_ranks):
    def work():
        rank = distributed.rank()
        mine = torch.arange(rank, rank + 200 * (rank % 3), 200)
        votes = [distributed.any_rank(rank == RANKS - 1), distributed.any_rank(False)]
        return votes, sorted(gathered(mine, torch.device("cpu")))

    expected = sorted(rank + 200 * n for rank in range(RANKS) for n in range(rank % 3))
    for votes, unreadable in on_ranks(work):
        assert votes == [True, False]
        assert unreadable == expected
