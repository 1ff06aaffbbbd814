"""The losses against what people would use instead: official formulas, lightly, plain forms.

    make benchmarks                                   # installs the peers first
    python -m benchmarks.peers                        # N=32 images, 7x7, D=128, K=65536
    python -m benchmarks.peers --losses dino dino_6   # 10 views of 16 and of 6 images
    python -m benchmarks.peers --images 4 --queue 4096 --repeats 2      # seconds

A process a loss; in it the forms take turns, step by step, so that a busy machine is busy for all.
A step is matching, loss and backward to the raw projections. Processor time of all threads; ratios
are taken between neighbours in time: median (range). *Added* is the peak of resident memory in a
step of each form after all others' memory was given back to the system.

official   the released formula, written out (official_forms.py), with its habits of memory
lightly    lightly's losses: DINOLoss, NTXentLoss with its memory bank, NegativeCosineSimilarity.
           What they do beside (moving centre, writing to the bank) is part of them; ours moves
           the centre, too, and writing 1568 of 65536 entries to a bank is less than 1 % of a step
plain      the paper's equation in full matrices (plain_forms.py)

solo-learn cannot be installed beside torch 2.11. Its MoCo loss is the official formula.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.loss_heads import TEMPERATURE, Inputs, head, matching, spread
from benchmarks.memory import peak, reset_peak

# loss: its goal against the best peer, and its peers
GOALS = {
    "moco": (3, ("official", "lightly")),
    "densecl": (3, ("official", "lightly", "plain")),
    "houghcl": (3, ("official", "plain")),
    "vader": (3, ("official", "lightly", "plain")),
    "setsim": (6, ("official", "plain")),
    "resim": (5, ("plain",)),
    "pixpro": (2, ("plain",)),
    "simsiam": (2, ("official", "lightly")),
    "dino": (1.5, ("official", "lightly", "plain")),
    "dino_6": (1.5, ("official", "lightly", "plain")),
    "scfs": (1.5, ("official",)),
    "scfs_6": (1.5, ("official",)),
}
ROOT = Path(__file__).parents[1]


def steps(loss, args):
    """For every form a function of the raw inputs that returns the loss, and those inputs."""
    import torch
    import torch.nn.functional as F

    from benchmarks import official_forms as official
    from benchmarks import plain_forms as plain
    from densessl.pretrain import losses

    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    if loss == "simsiam":
        p, z = normal(256, 2048), normal(256, 2048)
        return {
            "ours": lambda p: losses.negative_cosine(p, z),
            "official": lambda p: official.cosine(p, z),
            "lightly": lambda p: lightly("NegativeCosineSimilarity")()(p, z.detach()),
        }, [p]
    if loss == "moco":
        q, k = normal(256, args.width), F.normalize(normal(256, args.width))
        queue = F.normalize(normal(args.queue, args.width))
        bank = filled(queue)
        columns = queue.T.contiguous()
        return {
            "ours": lambda q: losses.info_nce(F.normalize(q), k, queue, TEMPERATURE),
            "official": lambda q: official.contrast(F.normalize(q), k, columns, TEMPERATURE),
            "lightly": lambda q: bank(q, k),
        }, [q]
    if loss.startswith(("dino", "scfs")):
        images = 6 if loss.endswith("_6") else args.images // 2
        student, teacher = normal(10 * images, args.queue) / 8, normal(2 * images, args.queue) / 8
        center = teacher.mean(0, keepdim=True)
        temperatures = (0.1, 0.04)
        if loss.startswith("scfs"):
            rows = teacher.repeat(5, 1)  # a target a row
            return {
                "ours": lambda s: losses.paired_distillation(s, rows, center, *temperatures),
                "official": lambda s: official.paired(s, rows, center, *temperatures),
            }, [student]

        def moving(function):
            def step(s):
                losses.next_center(center, teacher)
                return function(s.unflatten(0, (10, -1)), teacher.unflatten(0, (2, -1)), center)

            return step

        dino = lightly("DINOLoss")(args.queue, 0.04, 0.04, 30, 0.1)

        def lightlys(s):
            dino.center.copy_(center[None])
            return dino(list(teacher.chunk(2)), list(s.chunk(10)), epoch=0)

        return {
            "ours": moving(lambda s, t, c: losses.distillation(s, t, c, *temperatures)),
            "official": lambda s: official.dino(s, teacher, center, 10, *temperatures)[0],
            "lightly": lightlys,
            "plain": moving(plain.dino),
        }, [student]
    name = "densecl" if loss == "vader" else loss
    options = {k: getattr(args, k) for k in ("images", "grid", "width", "queue", "channels")}
    x = Inputs(options | {"loss": name})
    given = matching("ours", x) if loss == "vader" else None  # geometry: known before the step

    def whole(form):
        def step(*raw):
            x.raw = list(raw)
            return head(form, x, matching(form, x) if given is None else given)

        return step

    functions = {form: whole(form) for form in ("ours", "plain")}
    columns, bank = x.queue.T.contiguous(), filled(x.queue) if name == "densecl" else None

    def rows(raw):
        found = official.best(*x.z) if given is None else given
        if loss == "houghcl":
            found = matching("plain", x)
        positive = x.key.gather(2, found[:, None].expand_as(x.key))
        return [m.transpose(1, 2).flatten(0, 1) for m in (raw, positive)]

    def contrast(raw):
        return official.contrast(*rows(F.normalize(raw, dim=1)), columns, TEMPERATURE)

    def sets(raw):
        query = F.normalize(raw, dim=1)
        return official.sets(query, x.key, matching("plain", x), columns, TEMPERATURE)

    if loss in ("densecl", "houghcl", "vader"):
        functions |= {"official": contrast, "lightly": lambda raw: bank(*rows(raw))}
    if loss == "setsim":
        functions["official"] = sets
    return functions, x.raw


def lightly(name):
    import lightly.loss

    return getattr(lightly.loss, name)


def filled(queue):
    """lightly's contrast with a memory bank that holds ``queue``."""
    loss = lightly("NTXentLoss")(temperature=TEMPERATURE, memory_bank_size=tuple(queue.shape))
    loss.memory_bank.bank = queue.clone()
    loss.memory_bank.bank_ptr = queue.new_zeros(1).long()
    return loss


def measure(loss, args) -> None:
    """One process: the forms in turn; prints a JSON line for the parent."""
    import torch

    torch.set_num_threads(args.threads)
    functions, raw = steps(loss, args)
    names = ["ours", *GOALS[loss][1]]
    torch.ones(31 * 2**18)  # the allocator keeps smaller blocks from now on, as in training
    found = {name: {"cpu": [], "added": 0.0} for name in names}

    def once(name):
        inputs = [x.detach().requires_grad_() for x in raw]
        began = time.process_time()
        value = functions[name](*inputs)
        value.backward()
        return time.process_time() - began, value.item(), inputs[0].grad

    for repeat in range(args.repeats + 1):
        for name in names if repeat % 2 else names[::-1]:
            seconds, value, gradient = once(name)
            if repeat:  # the first is a warm-up
                found[name]["cpu"].append(seconds)
            elif name == "ours":
                ours = gradient
            found[name]["loss"] = value
            del gradient
    for name in names:
        ctypes.CDLL(None).malloc_trim(0)
        before = reset_peak()
        gradient = once(name)[2]
        found[name]["added"] = peak() - before
        found[name]["differs"] = ((gradient - ours).norm() / ours.norm()).item()
        del gradient
    print(json.dumps(found))


def run(loss: str) -> dict:
    """What a process of its own measures."""
    command = [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:], "--measure", loss]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--images", type=int, default=32, help="images in the batch, N")
    parser.add_argument("--grid", type=int, default=7, help="side of the feature map")
    parser.add_argument("--width", type=int, default=128, help="projection channels, D")
    parser.add_argument("--queue", type=int, default=65536, help="queue entries or prototypes, K")
    parser.add_argument("--channels", type=int, default=2048, help="backbone channels, C")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each form")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", choices=list(GOALS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args)
        return
    import torch

    print(
        f"N={args.images} {args.grid}x{args.grid} D={args.width} K={args.queue} C={args.channels}, "
        f"float32, {args.threads} thread(s), torch {torch.__version__}; processor time of "
        f"{args.repeats} steps in turn, ms; load {os.getloadavg()[0]:.1f} at the start\n"
    )
    print("| loss | ours, ms | best peer, ms | faster than the best | goal | reached |", end="")
    print(" ours adds, MiB | leanest peer, MiB | all peers, ms | differs |")
    print("|---|--:|--:|--:|--:|---|--:|--:|---|--:|", flush=True)
    for loss in args.losses:
        found, (goal, peers) = run(loss), GOALS[loss]
        milli = {name: [1000 * s for s in of["cpu"]] for name, of in found.items()}
        ratios = {
            name: [a / b for a, b in zip(milli[name], milli["ours"], strict=True)] for name in peers
        }
        best = min(peers, key=lambda name: sorted(ratios[name])[args.repeats // 2])
        reached = sorted(ratios[best])[args.repeats // 2] >= goal
        lean = min(peers, key=lambda name: found[name]["added"])
        all_peers = ", ".join(f"{name} {spread(milli[name], 0)}" for name in peers)
        differs = max(found[name]["differs"] for name in peers)
        print(
            f"| {loss} | {spread(milli['ours'], 1)} | {best} {spread(milli[best], 1)} | "
            f"{spread(ratios[best], 2)} × | {goal} × | {'yes' if reached else 'no'} | "
            f"{found['ours']['added']:.0f} | {lean} {found[lean]['added']:.0f} | {all_peers} | "
            f"{differs:.0e} |",
            flush=True,
        )
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
