"""Time and memory of the dense losses, ours against the plain full-matrix form, in one run.

    python -m benchmarks.loss_heads              # N=32 images, 7x7, D=128, K=65536
    python -m benchmarks.loss_heads --losses setsim pixpro
    python -m benchmarks.loss_heads --images 4 --queue 4096 --repeats 1      # seconds
    python -m benchmarks.loss_heads --kernels    # the ways to log-sum-exp over the queue, alone

One step is: normalise the query's projection, find the correspondence, loss, backward to the raw
projection; layers (projectors, PixPro's value transform) are in neither form. SetSim, DenseCL and
the set cosine match with the same code in both forms; HoughCL, PixPro and ReSim have a plain form
of it, too. ReSim has maps of twice and four times the grid and
256 channels, PixPro 256 channels; DINO has 10 views of half the images and K prototypes. Every
variant runs in its own process, so that its peak memory is its own; processes alternate, so that a
busy machine is busy for both; ratios are taken between neighbours and their median is printed. The
plain forms are in benchmarks/plain_forms.py.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .memory import peak, reset_peak

TEMPERATURE = 0.2
LOSSES = ("setsim", "densecl", "houghcl", "setsim_simsiam", "pixpro", "resim", "dino")
FORMS = ("plain", "ours")
STEPS = {"setsim_simsiam": 10, "pixpro": 10, "dino": 5}  # times as many: they take milliseconds


# ------------------------------------------------------------------------------------- the losses


class Inputs:
    """Random features, projections, queue and overlapping crops; the same in every process."""

    def __init__(self, options):
        import torch
        import torch.nn.functional as F

        generator = torch.Generator().manual_seed(0)
        self.options = options
        b, g, d = options["images"], options["grid"], options["width"]

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        self.z = [normal(b, options["channels"], g, g).relu_() for _ in range(2)]
        self.raw = [normal(b, d, g * g)]  # what gets a gradient
        self.key = F.normalize(normal(b, d, g * g), dim=1)
        self.queue = F.normalize(normal(options["queue"], d), dim=1)
        side = 100 + 124 * torch.rand(2, b, 1, generator=generator)
        corner = (224 - side) * torch.rand(2, b, 2, generator=generator)
        self.crops = torch.cat((corner, corner + side), dim=2)
        if options["loss"] == "dino":
            self.raw = [normal(10, b // 2, options["queue"]) / 8]
            self.other = [normal(2, b // 2, options["queue"]) / 8]
        # PixPro: projections of both views, and their value transforms.
        wide = {"pixpro": [g, g], "resim": [2 * g, 4 * g]}.get(options["loss"], [])
        if wide:
            self.raw = [normal(b, 256, side, side) for side in wide]
            if options["loss"] == "pixpro":
                self.raw += [normal(b, 256, side, side) for side in wide]
            self.other = [F.normalize(normal(b, 256, side, side), dim=1) for side in wide]

    def views(self):
        """The crops as views of 224 px."""
        import torch

        from densessl.pretrain.views import View

        b = len(self.crops[0])
        image, flip = torch.empty(b, 3, 224, 224, device="meta"), torch.zeros(b, dtype=torch.bool)
        return [View(image, crop, flip, torch.full((b, 2), 224.0)) for crop in self.crops]


def matching(form, x):
    """The correspondence of one step."""
    from benchmarks import plain_forms as plain
    from densessl.pretrain import correspondence as c

    loss, g = x.options["loss"], x.options["grid"]
    if loss == "densecl":
        return c.nearest(*x.z)
    if loss == "houghcl":
        query = x.raw[0].detach().unflatten(2, (g, g))
        key = x.key.unflatten(2, (g, g))
        if form == "plain":
            return plain.hough_match(query, key, (g, g))
        return c.best(c.hough_confidence(query, key, (g, g)), c.cosine(query, key))
    if loss in ("setsim", "setsim_simsiam"):
        pairs = c.set_to_set(c.salient(x.z[0]), c.salient(x.z[1]))
        pairs |= c.geometric_from_coordinates(*x.crops, (g, g), 0.5)
        return pairs | c.one_hot(c.nearest(*x.z), pairs.shape[2]) & pairs.any(2, keepdim=True)
    if loss == "resim":
        return [c.windows(*x.views(), side, stride) for side, stride in ((48, 32), (32, 24))]
    return (
        None
        if form == "plain" or loss == "dino"
        else c.geometric_from_coordinates(*x.crops, (g, g), 0.7)
    )


def head(form, x, found):
    """The loss of one step, from raw projections that have a gradient."""
    import torch.nn.functional as F

    from benchmarks import plain_forms as plain
    from densessl.pretrain import losses

    loss, g = x.options["loss"], x.options["grid"]
    if loss == "pixpro":
        if form == "plain":
            targets = [other.flatten(2) for other in x.other]
            return plain.pixpro(x.raw[:2], x.raw[2:], targets, x.crops, (g, g))
        sides = zip(x.raw[:2], x.raw[2:], x.other[::-1], (found, found.mT), strict=True)
        agreement = sum(losses.propagated_consistency(*side) for side in sides)
        return -2 * agreement
    if loss == "resim":
        return sum(
            resim_level(form, *maps, *windows)
            for *maps, windows in zip(x.raw, x.other, found, strict=True)
        )
    if loss == "dino":
        student, teacher = x.raw[0], x.other[0]
        center = teacher.mean((0, 1))[None]
        if form == "plain":
            return plain.dino(student, teacher, center)
        return losses.distillation(student, teacher, center, 0.1, 0.04)
    query = F.normalize(x.raw[0], dim=1)
    if loss == "setsim_simsiam":
        return (plain if form == "plain" else losses).set_cosine(query, x.key, found)
    if loss == "setsim":
        if form == "plain":
            return plain.sets(query, x.key, found, x.queue)
        return losses.set_info_nce(query, x.key, found, x.queue, TEMPERATURE, "mean")
    if form == "plain":
        return plain.dense(query, x.key, found, x.queue)
    return losses.dense_info_nce(query, x.key, found, x.queue, TEMPERATURE)


def resim_level(form, query_map, key_map, boxes_q, boxes_k, valid):
    import torch.nn.functional as F

    from benchmarks import plain_forms as plain
    from densessl.pretrain import losses

    scale = query_map.shape[3] / 224
    if form == "plain":
        return plain.resim(query_map, key_map, boxes_q, boxes_k, valid, scale)
    r, r_k = (
        F.normalize(losses.prroi_pool(features, boxes, scale).flatten(2), dim=2)
        for features, boxes in ((query_map, boxes_q), (key_map, boxes_k))
    )
    return losses.region_info_nce(r, r_k, valid, losses.cell_negatives(key_map), TEMPERATURE)


# ------------------------------------------------------------------------ one variant, one process


def measure(options):
    """One process: warm up, time the steps, and print a JSON line for the parent."""
    import torch

    torch.set_num_threads(options["threads"])
    x, form = Inputs(options), options["form"]
    # After a large block was freed, the allocator keeps the memory of smaller ones, as it does in
    # training behind the activations of a backbone; else each step would fetch its pages anew.
    torch.ones(31 * 2**18)
    before = reset_peak()
    times = []
    for _ in range(1 + options["steps"]):  # the first is a warm-up
        x.raw = [raw.detach().requires_grad_() for raw in x.raw]
        cpu, start = time.process_time(), time.perf_counter()
        found = matching(form, x)
        matched = time.perf_counter()
        value = head(form, x, found)
        value.backward()
        end = time.perf_counter()
        times.append((matched - start, end - matched, end - start, time.process_time() - cpu))
    result = {
        name: statistics.median(t[number] for t in times[1:])
        for number, name in enumerate(("matching", "head", "step", "cpu"))
    }
    result |= {"added": peak() - before, "loss": value.item()}
    torch.save(torch.cat([raw.grad.flatten() for raw in x.raw]), options["gradient"])
    print(json.dumps(result))


# ------------------------------------------------------------------------------------- the parent


def run(options: dict) -> dict:
    command = [sys.executable, "-m", "benchmarks.loss_heads", "--measure", json.dumps(options)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values, digits=3) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def compare(args) -> None:
    import torch

    shared = {k: getattr(args, k) for k in ("images", "grid", "width", "queue", "channels")}
    shared |= {"steps": args.steps, "threads": args.threads}
    results = {(loss, form): [] for loss in args.losses for form in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for loss in args.losses:
                for form in FORMS if repeat % 2 == 0 else FORMS[::-1]:
                    gradient = f"{folder}/{loss}_{form}.pth"
                    options = shared | {"loss": loss, "form": form, "gradient": gradient}
                    options["steps"] *= STEPS.get(loss, 1)
                    results[loss, form].append(run(options))
                    print(f"repeat {repeat + 1}/{args.repeats} {loss} {form}", file=sys.stderr)
        gradients = {
            (loss, form): torch.load(f"{folder}/{loss}_{form}.pth", weights_only=True)
            for loss, form in results
        }

    print(
        f"N={args.images} {args.grid}x{args.grid} D={args.width} K={args.queue} "
        f"C={args.channels}, float32, {args.threads} threads, torch {torch.__version__}; "
        f"{args.repeats} alternating processes of 1 + {args.steps} steps; median (range)\n"
    )
    print("| loss | form | head s | matching s | step s | CPU s a step | added MiB |")
    print("|---|---|---|---|---|---|---|")
    for (loss, form), runs in results.items():
        columns = [spread([r[name] for r in runs]) for name in ("head", "matching", "step", "cpu")]
        columns.append(spread([r["added"] for r in runs], 0))
        print(f"| {loss} | {form} | " + " | ".join(columns) + " |")
    print(
        "\n| loss | head faster | step faster | CPU time less | memory less | loss differs by |",
        end="",
    )
    print(" gradient differs by (largest) |\n|" + "---|" * 7)
    for loss in args.losses:
        pairs = list(zip(results[loss, "plain"], results[loss, "ours"], strict=True))
        names = ("head", "step", "cpu", "added")
        ratios = [spread([plain[n] / ours[n] for plain, ours in pairs], 1) for n in names]
        plain, ours = pairs[0]
        difference = (gradients[loss, "plain"] - gradients[loss, "ours"]).abs().max().item()
        largest = gradients[loss, "plain"].abs().max().item()
        columns = [f"{ratio} x" for ratio in ratios]
        columns.append(f"{abs(plain['loss'] - ours['loss']):.1e} of {plain['loss']:.4f}")
        columns.append(f"{difference:.1e} ({largest:.1e})")
        print(f"| {loss} | " + " | ".join(columns) + " |")


def kernels(args) -> None:
    """The ways to log-sum-exp over the queue with its gradient: time and error against float64."""
    import torch
    import torch.nn.functional as F

    from densessl.pretrain.losses import queue_logsumexp

    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    rows = args.images * args.grid**2
    query = F.normalize(torch.randn(rows, args.width, generator=generator), dim=1)
    queue = F.normalize(torch.randn(args.queue, args.width, generator=generator), dim=1)

    def full_matrix(q, k):
        return torch.logsumexp(q @ k.T / TEMPERATURE, dim=1)

    def value_and_gradient(function, q, k):
        q = q.detach().requires_grad_()
        value = function(q, k)
        return value.detach(), torch.autograd.grad(value.sum(), q)[0]

    ways = {
        "full matrix": full_matrix,
        "fused attention": lambda q, k: queue_logsumexp(q, k, TEMPERATURE, "attention"),
        "blocks": lambda q, k: queue_logsumexp(q, k, TEMPERATURE, "blocks"),
    }
    exact = value_and_gradient(full_matrix, query.double(), queue.double())
    times = {name: [] for name in ways}
    errors = {}
    for _ in range(1 + args.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            found = value_and_gradient(way, query, queue)
            times[name].append(time.perf_counter() - start)
            errors[name] = [(a - b).abs().max().item() for a, b in zip(found, exact, strict=True)]
    print(f"M={rows} K={args.queue} D={args.width}, {args.threads} threads; median (range)\n")
    print("| way | s | error of the value | error of the gradient |\n|---|---|---|---|")
    for name, values in times.items():
        value, gradient = errors[name]
        print(f"| {name} | {spread(values[1:])} | {value:.1e} | {gradient:.1e} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=LOSSES)
    parser.add_argument("--images", type=int, default=32, help="images in the batch, N")
    parser.add_argument("--grid", type=int, default=7, help="side of the feature map")
    parser.add_argument("--width", type=int, default=128, help="projection channels, D")
    parser.add_argument("--queue", type=int, default=65536, help="queue entries, K")
    parser.add_argument("--channels", type=int, default=2048, help="backbone channels, C")
    parser.add_argument("--steps", type=int, default=3, help="timed steps in each process")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each variant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kernels", action="store_true", help="only the log-sum-exp, by kernel")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(json.loads(args.measure))
    elif args.kernels:
        kernels(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
