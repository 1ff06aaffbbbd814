"""Time and memory of the dense probes, ours against other forms, in one run.

    python -m benchmarks.dense_probes                      # minutes, one thread
    python -m benchmarks.dense_probes --sizes 5000 --repeats 1
    python -m benchmarks.dense_probes --probes retrieval

Positions around random centres of 21 classes, 256 channels whose scales go from 1/3 to 3 (features
of a network have such), float32; each size is the number of positions that are learnt from. The
probes, each with its forms:

    linear     probes.linear_probe (l2 1e-4, 100 steps at most, gradient below 1e-4) and
               scikit-learn's LogisticRegression of the same loss, bounds and starting point
    retrieval  probes.knn_segment (30 neighbours, soft labels, 4,000 queries) and the full matrix
               with the neighbours' labels gathered at once
    clusters   probes.kmeans (200 clusters, 20 steps, of 50 channels) from given centres, and
               scikit-learn's KMeans (Lloyd) from the same

Each form runs in a process of its own; processes alternate. *CPU seconds* are the processor time of
all its threads, which a busy machine disturbs least; of one thread about what passes on an idle
core. *Added MiB* is the peak resident memory above what the features took. *Result* is what both
forms minimise (the loss, the inertia) or the mean largest probability. scikit-learn's forms are
left out where it is not installed.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.knn import run, spread  # noqa: E402
from benchmarks.memory import peak, reset_peak  # noqa: E402

CLASSES, CHANNELS, QUERIES, K, CLUSTERS = 21, 256, 4000, 30, 200
L2, STEPS, GRADIENT, COMPONENTS, LLOYD = 1e-4, 100, 1e-4, 50, 20
FORMS = {
    "linear": ("ours", "sklearn"),
    "retrieval": ("ours", "full"),
    "clusters": ("ours", "sklearn"),
}


def inputs(size: int):
    """Features ``[size, 256]`` and their labels; the same in every process."""
    import torch

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLASSES, CHANNELS, generator=generator)
    labels = torch.randint(CLASSES, (size,), generator=generator)
    features = torch.randn(size, CHANNELS, generator=generator).mul_(10).add_(centres[labels])
    return features.mul_(torch.logspace(-0.5, 0.5, CHANNELS)), labels


def linear_ours(features, labels):
    from densessl import probes

    found = probes.linear_probe(
        features, labels, CLASSES, l2=L2, iterations=STEPS, tolerance=GRADIENT
    )
    return found.loss


def linear_sklearn(features, labels):
    import torch
    import torch.nn.functional as F
    from sklearn.linear_model import LogisticRegression

    C = 1 / (L2 * len(features))
    model = LogisticRegression(C=C, tol=GRADIENT, max_iter=STEPS)
    model.fit(features.numpy(), labels.numpy())
    logits = model.decision_function(features.numpy())
    loss = F.cross_entropy(torch.from_numpy(logits).double(), labels)
    return float(loss + L2 / 2 * (model.coef_.astype(float) ** 2).sum())


def queries_and_labels(features, labels):
    import torch
    import torch.nn.functional as F

    counts = 3 * F.one_hot(labels, CLASSES) + F.one_hot(labels.roll(1), CLASSES)
    generator = torch.Generator().manual_seed(1)
    queries = features[torch.randint(len(features), (QUERIES,), generator=generator)]
    return queries + torch.randn(queries.shape, generator=generator), counts


def retrieval_ours(features, labels):
    from densessl import probes

    queries, counts = queries_and_labels(features, labels)
    return float(probes.knn_segment(queries, features, counts, K).max(1).values.mean())


def retrieval_full(features, labels):
    import torch.nn.functional as F

    queries, counts = queries_and_labels(features, labels)
    similarity, index = (F.normalize(queries) @ F.normalize(features).T).topk(K, dim=1)
    shares = counts / counts.sum(1, keepdim=True)
    found = ((similarity / 0.02).softmax(1)[:, :, None] * shares[index]).sum(1)
    return float(found.max(1).values.mean())


def clusters_ours(features, labels):
    from densessl import probes

    x = features[:, :COMPONENTS].contiguous()
    return probes.kmeans(x, CLUSTERS, initial=x[:CLUSTERS], iterations=LLOYD).inertia


def clusters_sklearn(features, labels):
    from sklearn.cluster import KMeans

    x = features[:, :COMPONENTS].numpy().copy()
    model = KMeans(CLUSTERS, init=x[:CLUSTERS], n_init=1, max_iter=LLOYD, tol=0)
    return float(model.fit(x).inertia_)


def measure(options: dict) -> None:
    """One process: warm up, time one form, and print a JSON line for the parent."""
    import torch

    torch.set_num_threads(options["threads"])
    torch.set_grad_enabled(False)
    form = globals()[f"{options['probe']}_{options['form']}"]
    form(*inputs(1000))
    given = inputs(options["size"])
    before = reset_peak()
    began = time.process_time()
    result = form(*given)
    seconds = time.process_time() - began
    print(json.dumps({"seconds": seconds, "added": peak() - before, "result": result}))


def compare(args, probe: str, forms: list[str], size: int) -> None:
    """Run the forms in turn, and print a row for each."""
    results: dict[str, list[dict]] = {form: [] for form in forms}
    for repeat in range(args.repeats):
        for form in forms if repeat % 2 == 0 else forms[::-1]:
            options = {"probe": probe, "form": form, "size": size, "threads": args.threads}
            results[form].append(run(options, __file__, ("-W", "ignore")))
            print(f"{probe} {size} repeat {repeat + 1}/{args.repeats} {form}", file=sys.stderr)
    for form, runs in results.items():
        columns = [spread([r["seconds"] for r in runs]), spread([r["added"] for r in runs], 0)]
        pairs = zip(runs, results["ours"], strict=True)
        columns.append(spread([theirs["seconds"] / ours["seconds"] for theirs, ours in pairs], 1))
        print(f"| {probe} | {size:,} | {form} | {' | '.join(columns)} | {runs[0]['result']:.6g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--probes", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[20_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(json.loads(args.measure))
        return
    has_sklearn = importlib.util.find_spec("sklearn") is not None
    if not has_sklearn:
        print("scikit-learn is not installed, and is left out", file=sys.stderr)
    print(f"{CHANNELS} channels, {CLASSES} classes, float32, threads: {args.threads}; processes of")
    print(f"each form in turn, {args.repeats} of each; median (range)\n")
    print("| probe | positions | form | CPU seconds | added MiB | times ours | result |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for probe in args.probes:
        for size in args.sizes:
            forms = [form for form in FORMS[probe] if form != "sklearn" or has_sklearn]
            compare(args, probe, forms, size)


if __name__ == "__main__":
    main()
