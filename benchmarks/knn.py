"""Time and memory of the weighted k-NN, ours against other forms of it, in one run.

    python -m benchmarks.knn                       # 1,000 queries, 50,000 x 2,048 database
    python -m benchmarks.knn --queries 10000       # minutes
    python -m benchmarks.knn --forms ours full

k = 10, 20, 100, 200 at temperature 0.07, float32, features of length 1 around random centres of
1,000 classes. The forms:

    ours     knn.classify: one search in blocks serves every k
    full     one full N x M matrix, one topk of 200, one-hot votes
    per_k    as published code does: the queries in parts of 500 (a hundredth of ImageNet's val),
             and a search of its own for each k
    faiss    faiss-cpu's flat index of inner products (exact), one search for 200 neighbours, and
             our vote; the index' copy of the database is not counted, neither time nor memory
             (its OpenBLAS does not know every new processor; OPENBLAS_CORETYPE=SkylakeX names one
             with AVX-512, and makes it four times as fast there)
    sklearn  scikit-learn's brute force (Euclidean, which orders rows of length 1 alike), one search
             for 200 neighbours, and our vote

Peers that are not installed are left out. *CPU s* is the processor time of all threads.

Each form runs in a process of its own, so that its peak memory is its own; processes alternate.
*Added MiB* is the peak resident memory above what the features took. Ends with exit code 1 when
ours predicts other classes than the full matrix.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORMS = ("ours", "full", "per_k", "faiss", "sklearn")
PEERS = ("faiss", "sklearn")  # to be installed
KS, TEMPERATURE, CLASSES = (10, 20, 100, 200), 0.07, 1000
WARM_UP = 64  # queries


def features(options):
    """Queries, database and its labels; the same in every process."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    width = options["width"]
    centres = torch.randn(CLASSES, width, generator=generator)

    def around(count):
        labels = torch.randint(CLASSES, (count,), generator=generator)
        x = torch.randn(count, width, generator=generator).mul_(3.5)
        return F.normalize(x.add_(centres[labels])), labels

    database, labels = around(options["database"])
    return around(options["queries"])[0], database, labels


def ours(queries, database, labels):
    from densessl.core import knn

    found = knn.classify(queries, database, labels, CLASSES, KS, TEMPERATURE)
    return {k: predicted[:, 0] for k, predicted in found.items()}


def full(queries, database, labels):
    similarity, index = (queries @ database.T).topk(max(KS), dim=1)
    return {k: voted(similarity[:, :k], labels[index[:, :k]]) for k in KS}


def per_k(queries, database, labels):
    import torch

    found = {}
    for k in KS:
        parts = []
        for part in queries.split(500):
            similarity, index = (part @ database.T).topk(k, dim=1)
            parts.append(voted(similarity, labels[index]))
        found[k] = torch.cat(parts)
    return found


def faiss(queries, index, labels):
    import torch

    from densessl.core import knn

    similarity, number = map(torch.from_numpy, index.search(queries.numpy(), max(KS)))
    found = knn.vote(similarity, labels[number], CLASSES, KS, TEMPERATURE)
    return {k: predicted[:, 0] for k, predicted in found.items()}


def flat_index(database):
    """faiss' exact index, which holds a copy."""
    from faiss import IndexFlatIP

    index = IndexFlatIP(database.shape[1])
    index.add(database.numpy())
    return index


def sklearn(queries, database, labels):
    import torch
    from sklearn.neighbors import NearestNeighbors

    from densessl.core import knn

    search = NearestNeighbors(n_neighbors=max(KS), algorithm="brute").fit(database.numpy())
    distance, index = map(torch.from_numpy, search.kneighbors(queries.numpy()))
    similarity = 1 - distance.float().square() / 2
    found = knn.vote(similarity, labels[index], CLASSES, KS, TEMPERATURE)
    return {k: predicted[:, 0] for k, predicted in found.items()}


def voted(similarity, labels):
    """The likeliest class of each query by one-hot votes ``[n, k, classes]``, in parts of 10."""
    import torch
    import torch.nn.functional as F

    weights = (similarity / TEMPERATURE).exp()
    parts = zip(weights.split(10), labels.split(10), strict=True)
    votes = [(F.one_hot(label, CLASSES) * weight[:, :, None]).sum(1) for weight, label in parts]
    return torch.cat(votes).argmax(1) if votes else labels[:, 0]


def measure(options) -> None:
    """One process: warm up, time one form, and print a JSON line for the parent."""
    import torch

    sys.path.insert(0, str(ROOT))
    from benchmarks.memory import peak, reset_peak

    torch.set_num_threads(options["threads"])
    queries, database, labels = features(options)
    form = globals()[options["form"]]
    given = flat_index if options["form"] == "faiss" else (lambda rows: rows)
    form(queries[:WARM_UP], given(database[:1000]), labels[:1000])
    inputs = queries, given(database), labels
    before = reset_peak()
    began, cpu = time.perf_counter(), time.process_time()
    found = form(*inputs)
    result = {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - began}
    torch.save(found, options["predictions"])
    print(json.dumps(result | {"added": peak() - before}))


def run(options: dict, script: str = __file__, flags: tuple[str, ...] = ()) -> dict:
    """What a process of its own measures: the last line that ``script --measure`` prints."""
    command = [sys.executable, *flags, script, "--measure", json.dumps(options)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options["threads"]))
    environment = os.environ | threads  # torch's own number is nothing to scikit-learn
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values, digits=2) -> str:
    middle, low, high = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} ({low}-{high})"


def compare(args) -> None:
    import torch

    from benchmarks.goals import goal, ratios  # a process that measures is run as a script

    shared = {name: getattr(args, name) for name in ("queries", "database", "width", "threads")}
    results: dict[str, list[dict]] = {form: [] for form in args.forms}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for form in args.forms if repeat % 2 == 0 else args.forms[::-1]:
                options = shared | {"form": form, "predictions": f"{folder}/{form}.pth"}
                results[form].append(run(options))
                print(f"repeat {repeat + 1}/{args.repeats} {form}", file=sys.stderr)
        predictions = {
            form: torch.load(f"{folder}/{form}.pth", weights_only=True) for form in args.forms
        }
    print(
        f"{args.queries} queries, {args.database} x {args.width} database, k {KS}, float32, "
        f"{args.threads} threads, torch {torch.__version__}; {args.repeats} alternating processes; "
        f"median (range); load {os.getloadavg()[0]:.1f}\n"
    )
    print("| form | CPU s | seconds | added MiB | ours takes less CPU time | adds less |", end="")
    print(" other predictions |\n|---|---|---|---|---|---|---|")
    for form, runs in results.items():
        columns = [spread([r[name] for r in runs]) for name in ("cpu", "seconds")]
        columns.append(spread([r["added"] for r in runs], 0))
        for name in ("cpu", "added"):
            pairs = zip(runs, results["ours"], strict=True)
            columns.append(spread([theirs[name] / mine[name] for theirs, mine in pairs]) + " x")
        differ = {k: (predictions[form][k] != predictions["ours"][k]).sum().item() for k in KS}
        columns.append(", ".join(f"{count} at k {k}" for k, count in differ.items() if count))
        print(f"| {form} | {' | '.join(columns[:-1])} | {columns[-1] or 'none'} |")
    if "faiss" in results:
        theirs, ours = ([r["cpu"] for r in results[form]] for form in ("faiss", "ours"))
        print("\n" + goal("ours", ratios(theirs, ours), 1, "x faiss' speed"))
    if "full" in predictions and any(
        not torch.equal(predictions["ours"][k], predictions["full"][k]) for k in KS
    ):
        sys.exit("ours predicts other classes than the full matrix")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--database", type=int, default=50000)
    parser.add_argument("--width", type=int, default=2048, help="channels of a feature")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(json.loads(args.measure))
        return
    for name in PEERS:
        if name in args.forms and importlib.util.find_spec(name) is None:
            print(f"{name} is not installed, and is left out", file=sys.stderr)
            args.forms.remove(name)
    if "ours" not in args.forms:
        args.forms.insert(0, "ours")
    compare(args)


if __name__ == "__main__":
    main()
