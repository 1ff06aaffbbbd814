"""Time and memory of the dense losses, ours against the plain full-matrix form, in one run.

    python -m benchmarks.loss_heads              # N=32 images, 7x7, D=128, K=65536
    python -m benchmarks.loss_heads --images 4 --queue 4096 --repeats 1      # seconds
    python -m benchmarks.loss_heads --kernels    # the ways to log-sum-exp over the queue, alone

One step is: normalise the query projection, find the correspondence on the backbone features (the
same code for both forms), loss, backward to the raw query projection. Every variant runs in its own
process, so that its peak memory is its own; processes alternate, so that a busy machine is busy for
both; ratios are taken between neighbours and their median is printed. The plain forms are the
papers' formulas as they are usually written, with the [B, N, K] logits.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEMPERATURE = 0.2
LOSSES = ("setsim", "densecl")
FORMS = ("plain", "ours")


# ------------------------------------------------------------------------------- the plain forms


def plain_dense(query, key, match, queue):
    """DenseCL eq. 3 by cross entropy over [positive, queue] logits, ``[B * N, 1 + K]``."""
    import torch
    import torch.nn.functional as F

    positive = key.gather(2, match[:, None, :].expand_as(query))
    rows = query.transpose(1, 2).flatten(0, 1)  # [B * N, D]
    same = (query * positive).sum(1).flatten()[:, None]
    logits = torch.cat((same, rows @ queue.T), dim=1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.long))


def plain_set(query, key, mask, queue):
    """SetSim eq. 8 by log-probabilities of [view, queue] logits, ``[B, N, N + K]``."""
    import torch

    rows = query.transpose(1, 2)  # [B, N, D]
    logits = torch.cat((rows @ key, rows @ queue.T), dim=2) / TEMPERATURE
    from_queue = mask.new_ones(1, 1, 1).expand(*mask.shape[:2], len(queue))
    exponential = torch.exp(logits) * torch.cat((mask, from_queue), dim=2)
    log_prob = logits - torch.log(exponential.sum(2, keepdim=True))
    positives = torch.cat((mask, ~from_queue), dim=2)
    count = mask.sum(2)  # n_i
    loss = -(positives * log_prob).sum(2) / count.clamp_min(1)
    return (loss.sum(1) / (count > 0).sum(1).clamp_min(1)).mean()


# ------------------------------------------------------------------------ one variant, one process


def inputs(options):
    """Random features, projections, queue and overlapping crops; the same in every process."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    b, g, d = options["images"], options["grid"], options["width"]

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    z_q, z_k = (normal(b, options["channels"], g, g).relu_() for _ in range(2))
    raw = normal(b, d, g * g)
    key = F.normalize(normal(b, d, g * g), dim=1)
    queue = F.normalize(normal(options["queue"], d), dim=1)
    side = 100 + 124 * torch.rand(2, b, 1, generator=generator)
    corner = (224 - side) * torch.rand(2, b, 2, generator=generator)
    return z_q, z_k, raw, key, queue, torch.cat((corner, corner + side), dim=2)


def correspondence(loss, z_q, z_k, crops, grid):
    """The match of DenseCL, or SetSim's Set + Geo + nearest neighbour."""
    from pretrain import correspondence as c

    match = c.nearest(z_q, z_k)
    if loss == "densecl":
        return match
    pairs = c.set_to_set(c.salient(z_q), c.salient(z_k))
    pairs |= c.geometric_from_coordinates(crops[0], crops[1], (grid, grid), 0.5)
    return pairs | c.one_hot(match, pairs.shape[2]) & pairs.any(2, keepdim=True)


def measure(options):
    """One process: warm up, time the steps, and print a JSON line for the parent."""
    import torch
    import torch.nn.functional as F

    from pretrain.losses import dense_info_nce, set_info_nce

    torch.set_num_threads(options["threads"])
    z_q, z_k, raw, key, queue, crops = inputs(options)
    loss_name, form = options["loss"], options["form"]

    def head(query, pairs):
        if form == "plain":
            return (plain_set if loss_name == "setsim" else plain_dense)(query, key, pairs, queue)
        if loss_name == "setsim":
            return set_info_nce(query, key, pairs, queue, TEMPERATURE, "mean")
        return dense_info_nce(query, key, pairs, queue, TEMPERATURE)

    before = reset_peak()
    times = []
    for _ in range(1 + options["steps"]):  # the first is a warm-up
        raw = raw.detach().requires_grad_()
        cpu, start = time.process_time(), time.perf_counter()
        pairs = correspondence(loss_name, z_q, z_k, crops, options["grid"])
        matched = time.perf_counter()
        value = head(F.normalize(raw, dim=1), pairs)
        value.backward()
        end = time.perf_counter()
        times.append((matched - start, end - matched, end - start, time.process_time() - cpu))
    result = {
        "matching": statistics.median(t[0] for t in times[1:]),
        "head": statistics.median(t[1] for t in times[1:]),
        "step": statistics.median(t[2] for t in times[1:]),
        "cpu": statistics.median(t[3] for t in times[1:]),
        "added": peak() - before,
        "loss": value.item(),
        "rows": (pairs.any(2) if pairs.ndim == 3 else torch.ones_like(pairs)).float().mean().item(),
    }
    torch.save(raw.grad, options["gradient"])
    print(json.dumps(result))


def reset_peak() -> float:
    """Forget the peak so far (Linux); returns the resident memory now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """The peak of resident memory since reset_peak(), in MiB."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


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
    results = {(loss, form): [] for loss in LOSSES for form in FORMS}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for loss in LOSSES:
                for form in FORMS if repeat % 2 == 0 else FORMS[::-1]:
                    gradient = f"{folder}/{loss}_{form}.pth"
                    options = shared | {"loss": loss, "form": form, "gradient": gradient}
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
    print(" gradient differs by (largest) | rows with a positive |\n|" + "---|" * 8)
    for loss in LOSSES:
        pairs = list(zip(results[loss, "plain"], results[loss, "ours"], strict=True))
        names = ("head", "step", "cpu", "added")
        ratios = [spread([plain[n] / ours[n] for plain, ours in pairs], 1) for n in names]
        plain, ours = pairs[0]
        difference = (gradients[loss, "plain"] - gradients[loss, "ours"]).abs().max().item()
        largest = gradients[loss, "plain"].abs().max().item()
        columns = [f"{ratio} x" for ratio in ratios]
        columns.append(f"{abs(plain['loss'] - ours['loss']):.1e} of {plain['loss']:.4f}")
        columns += [f"{difference:.1e} ({largest:.1e})", f"{ours['rows']:.0%}"]
        print(f"| {loss} | " + " | ".join(columns) + " |")


def kernels(args) -> None:
    """The ways to log-sum-exp over the queue with its gradient: time and error against float64."""
    import torch
    import torch.nn.functional as F

    from pretrain.losses import queue_logsumexp

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
