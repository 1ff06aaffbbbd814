"""Signs of life: what they measure, and that a dying run is told from a healthy one."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from benchmarks.health_bands import TWINS
from densessl.core.errors import StoppedEarly
from densessl.pretrain import config
from densessl.pretrain.engine import collapse
from densessl.pretrain.engine.announce import remarks
from densessl.pretrain.engine.collapse import WINDOW, Collapse, at_chance
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods import build_method
from densessl.pretrain.methods.heads import unit
from densessl.pretrain.methods.signs import image_signs, pair_signs, position_signs
from densessl.pretrain.scenes import main as scenes


def random_units(*shape, seed=0):
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double())


def floats(values):
    return {name.removeprefix("stat/"): float(value) for name, value in values.items()}


def by_hand(rows, queries, pairwise=True):
    """The signs of (positives, negatives) of each query, pairs of vectors, after the papers.

    ``queries``: the pairs of which uniformity is. ``pairwise``: a positive is set against each
    negative alone, not against all.
    """
    hits, near, far = [], [], []
    for positives, negatives in rows:
        cosines = [float(x @ y) for x, y in positives]
        others = [float(x @ y) for x, y in negatives]
        hits.append(np.mean(np.subtract.outer(cosines, others if pairwise else max(others)) > 0))
        near += positives
        far += negatives
    distances = [float((x - y).square().sum()) for x, y in queries]
    return {
        "accuracy": np.mean(hits),
        "chance": 0.5 if pairwise else np.mean([1 / (len(far) + 1) for _, far in rows]),
        "positive_similarity": np.mean([float(x @ y) for x, y in near]),
        "negative_similarity": np.mean([float(x @ y) for x, y in far]),
        "alignment": np.mean([float((x - y).square().sum()) for x, y in near]),
        "uniformity": math.log(np.mean(np.exp(-2 * np.array(distances)))),
    }


def test_signs_of_images_are_the_papers():
    q = random_units(6, 5)
    k = unit(q + 0.7 * random_units(6, 5, seed=1))
    rows = [([(q[i], k[i])], [(q[i], k[j]) for j in range(6) if j != i]) for i in range(6)]
    queries = [(q[i], q[j]) for i in range(6) for j in range(6) if i != j]
    found, expected = floats(image_signs(q, k)), by_hand(rows, queries, pairwise=False)
    pairs = torch.pdist(q).square()  # as the paper's code
    assert expected["uniformity"] == pytest.approx(pairs.mul(-2).exp().mean().log().item())
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 < found["accuracy"] < 1


def pairs_of(q, counting):
    """Of queries ``[B, N, D]``, each that counts with those of the image before it."""
    return [(q[b, i], q[c, j]) for b, i in counting for c, j in counting if c == (b - 1) % len(q)]


def test_signs_of_positions_contrast_with_another_image():
    """Sets of positives, a query without one, and matches."""
    B, D, N = 3, 4, 5
    q, k = random_units(B, D, N), random_units(B, D, N, seed=1)
    mask = torch.rand(B, N, N, generator=torch.Generator().manual_seed(2)) < 0.3
    mask[1, 2] = False
    counting = [(b, i) for b in range(B) for i in range(N) if mask[b, i].any()]
    assert (1, 2) not in counting
    rows = [
        (
            [(q[b, :, i], k[b, :, j]) for j in range(N) if mask[b, i, j]],
            [(q[b, :, i], k[b - 1, :, j]) for j in range(N)],
        )
        for b, i in counting
    ]
    expected = by_hand(rows, pairs_of(q.transpose(1, 2), counting))
    found = floats(position_signs(q, k, mask))
    assert found == pytest.approx({f"positions_{name}": v for name, v in expected.items()})
    match = torch.randint(N, (B, N), generator=torch.Generator().manual_seed(3))
    one_hot = torch.nn.functional.one_hot(match, N)
    assert floats(position_signs(q, k, match)) == floats(position_signs(q, k, one_hot))


@pytest.mark.parametrize("side", [2, 3, 7])
@pytest.mark.parametrize("positives", [1, 2, 4])
@pytest.mark.parametrize("alike", [0.0, 3.0])
def test_a_guess_among_positions_is_right_as_often_as_said(side, positives, alike):
    """Of noise it is chance, for any number of positives, and if an image's positions are alike."""
    B, N = 2000, side * side
    k = random_units(B, 16, N, seed=1) + alike * random_units(B, 16, 1, seed=2)
    mask = torch.zeros(B, N, N, dtype=torch.bool)
    mask[:, :2, :positives] = True
    found = floats(position_signs(random_units(B, 16, N), unit(k), mask))
    error = math.sqrt(0.25 / B)  # of so many images, at most
    assert found["positions_chance"] == 0.5
    assert found["positions_accuracy"] == pytest.approx(0.5, abs=4 * error)


def test_pairs_that_do_not_count_are_neither_positive_nor_negative():
    q, k = random_units(3, 4, 6).transpose(1, 2), random_units(3, 4, 6, seed=1).transpose(1, 2)
    valid = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 1], [0] * 6]).bool()
    rows = [
        ([(q[b, i], k[b, i])], [(q[b, i], k[b - 1, j]) for j in range(6) if valid[b - 1, j]])
        for b in range(3)
        for i in range(6)
        if valid[b, i] and valid[b - 1].any()
    ]
    found = floats(pair_signs(q, k, valid))
    # Uniformity is of nothing: the first image has no negatives, the last is not valid.
    assert math.isnan(found.pop("positions_uniformity"))
    expected = by_hand(rows, queries=[(q[0, 0], q[0, 0])])
    del expected["uniformity"]
    assert found == pytest.approx({f"positions_{name}": v for name, v in expected.items()})
    nothing = floats(pair_signs(q, k, torch.zeros_like(valid)))
    assert all(math.isnan(value) for value in nothing.values())


def test_collapsed_embeddings_have_no_hit_and_no_uniformity():
    one = random_units(1, 5).expand(8, 5)
    found = floats(image_signs(one, one))
    assert found["accuracy"] == 0 and found["uniformity"] == pytest.approx(0)
    assert found["chance"] == 1 / 8 and found["negative_similarity"] == pytest.approx(1)
    assert image_signs(one[:1], one[:1]) == {}  # nothing to compare with


def test_half_precision_is_measured_in_full():
    q = random_units(8, 32).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = image_signs(q, q)
    assert found["stat/uniformity"].dtype == torch.float32
    assert floats(found) == pytest.approx(floats(image_signs(q.float(), q.float())))


@pytest.mark.parametrize(
    "chance, times, trials", [(1 / 32, 1.5, 6400), (1 / 8, 1.5, 1600), (1 / 2, 1.07, 6400)]
)
def test_chance_is_a_lower_tail_of_the_binomial(chance, times, trials):
    tail = [scipy.stats.binom.cdf(hits, trials, times * chance) for hits in range(trials)]
    most = max(hits for hits, p in enumerate(tail) if p < 1e-4)
    assert at_chance(most / trials, chance, times, trials)
    assert not at_chance((most + 1) / trials, chance, times, trials)
    assert not at_chance(0.0, 0.95, times, trials)  # so many times that is no accuracy


def values(spread=0.5, accuracy=0.5, chance=1 / 32):
    return {"stat/feature_std": spread, "stat/accuracy": accuracy, "stat/chance": chance}


def test_a_spread_below_a_tenth_is_said_once_and_kept(caplog):
    watched = Collapse(warmup=0, images=32)
    for step, spread in enumerate((0.5, 0.3, 0.06, 0.04), start=1):
        watched.count(step, values(spread))
        resumed = Collapse(warmup=0, images=32)
        resumed.load_state_dict(watched.state_dict())
        watched = resumed
    watched.count(5, values(0.01))
    assert watched.facts() == {"collapse/spread": 4}
    assert len(caplog.records) == 1 and "step 4" in caplog.records[0].message


def test_at_a_rate_above_the_rule_a_third_is_enough(caplog):
    for too_fast, expected in ((True, {"collapse/spread": 2}), (False, {})):
        watched = Collapse(warmup=0, images=32, too_fast=too_fast)
        for step, spread in enumerate((0.48, 0.15, 0.12), start=1):
            watched.count(step, values(spread))
        assert watched.facts() == expected
    assert "below a third" in caplog.text


def test_accuracy_counts_after_the_warm_up_and_over_a_whole_window(caplog):
    watched = Collapse(warmup=30, images=32)
    for step in range(1, 30 + WINDOW + 1):
        assert not watched.facts()
        watched.count(step, values(accuracy=1 / 32))
    assert watched.facts() == {"collapse/accuracy": 30 + WINDOW}
    better = Collapse(warmup=0, images=32)
    for step in range(1, 3 * WINDOW + 1):
        better.count(step, values(accuracy=2 / 32))
    assert not better.facts()


def test_positions_are_judged_by_how_often_of_two_the_right_one_is_nearer(caplog):
    for accuracy, expected in ((0.5, {"collapse/positions_accuracy": WINDOW}), (0.6, {})):
        watched = Collapse(warmup=0, images=32)
        for step in range(1, WINDOW + 1):
            found = {"stat/positions_accuracy": accuracy, "stat/positions_chance": 0.5}
            watched.count(step, values() | found)
        assert watched.facts() == expected
    assert "50.00 %, and a guess is right in 50.00 %" in caplog.text


def test_an_older_checkpoint_has_nothing_to_compare_with():
    watched = Collapse(warmup=0, images=32)
    watched.load_state_dict({})
    watched.count(500, values(0.0))
    assert not watched.facts()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("scenes")
    options = ["--train", "48", "--val", "2", "--size", "64", "--seed", "3", "--workers", "1"]
    assert not scenes.main([str(folder), *options])
    return folder / "imagenet" / "train"


SMALL = Path(__file__).parents[2] / "benchmarks" / "small_backbone.py"
SMALL = ("BACKBONE.NAME", f"{SMALL}:SmallPyramid")


def run(method, images, folder, *more):
    preset, own = TWINS[method]
    options = ["DATA.PATH", images, "OUTPUT_DIR", folder, "DATA.WORKERS", 0, "DEVICE", "cpu"]
    words = map(str, [*own, *options, "SOLVER.MAX_STEPS", 15, *more])
    cfg = config.load(f"{preset}_scenes", list(words))
    train(cfg)
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()
    return cfg, [json.loads(line) for line in lines]


def warnings(cfg, begin="step "):
    """Those of the run's log that begin so: with a step, by what came of it."""
    log = (Path(cfg.OUTPUT_DIR) / "log.txt").read_text().splitlines()
    return [line for line in log if f" WARNING {begin}" in line]


COLLAPSING = ["SOLVER.REFERENCE_BATCH", 16, "SOLVER.MAX_STEPS", 20, "MOCO.QUEUE", 48]
COLLAPSING += ["SOLVER.SCHEDULE", "constant", "MOCO.MOMENTUM", 0.999]


@pytest.mark.slow
@pytest.mark.parametrize("method, size", [("moco", 64), ("setsim", 64), ("moco", 96)])
def test_a_collapsing_rate_is_warned_of_at_other_sizes(method, size, images, tmp_path):
    """Where the spread never falls below a tenth in so few steps."""
    cfg, lines = run(method, images, tmp_path, *COLLAPSING, "VIEWS.SIZE", size)
    assert len(warnings(cfg)) == 1 and lines[-1]["collapse/spread"] <= 20
    assert "SOLVER.BASE_LR" in warnings(cfg)[0]


def test_a_collapsing_rate_is_warned_of_within_20_steps(images, tmp_path):
    """The rate of a batch of 256 for one of 16; once, and known where the run is resumed."""
    rate = [*COLLAPSING, "VIEWS.SIZE", 32]
    cfg, lines = run("moco", images, tmp_path / "run", *rate, "CHECKPOINT.STEPS", 18)
    (warning,) = warnings(cfg)
    assert "stat/feature_std" in warning and "SOLVER.BASE_LR" in warning
    (step,) = {line["collapse/spread"] for line in lines if "collapse/spread" in line}
    assert step <= 18 and "collapse/spread" not in lines[step - 2]
    (tmp_path / "run" / "backbone_final.pth").unlink()
    (tmp_path / "run" / "checkpoints" / "step_00000020.pth").unlink()
    train(cfg)
    assert len(warnings(cfg)) == 1
    again = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(again[-1])["collapse/spread"] == step


ON_RESNET = {  # contrast, a predictor, a teacher: the options of their runs
    "moco": ["VIEWS.SIZE", 32, "SOLVER.MAX_STEPS", 8],
    "byol": [],
    "dino": [],
}


@pytest.mark.parametrize(
    "method", [m if m == "moco" else pytest.param(m, marks=pytest.mark.slow) for m in TWINS]
)
def test_a_healthy_run_of_each_method_is_not_warned_of(method, images, tmp_path):
    """One of each kind on a ResNet-18, the others on a network whose steps take no time."""
    smaller = ["VIEWS.LOCAL_CROPS", 2] if method in ("swav", "dino", "scfs") else []
    more = [*ON_RESNET.get(method, SMALL), *smaller]
    cfg, lines = run(method, images, tmp_path, "MOCO.QUEUE", 48, *more)
    assert warnings(cfg) == []
    assert not any(key.startswith("collapse/") for key in lines[-1])
    signs = ("accuracy", "positive_similarity", "negative_similarity", "alignment", "uniformity")
    dense = method in ("setsim", "setsim_simsiam", "densecl", "houghcl", "pixpro", "vader")
    dense |= method in ("resim", "dense", "dense_simsiam")
    for what in ("", "positions_") if dense else ("",):
        for sign in signs:
            assert math.isfinite(lines[-1][f"stat/{what}{sign}"]), sign


@pytest.mark.slow
@pytest.mark.parametrize("method", ["setsim", "pixpro"])
@pytest.mark.parametrize("size", [64, 96])
def test_few_positions_are_no_reason_to_warn(method, size, images, tmp_path, monkeypatch):
    """With 2 x 2 and 3 x 3 positions, several of which match; over a shorter window."""
    monkeypatch.setattr(collapse, "WINDOW", 20)
    more = ["VIEWS.SIZE", size, "SOLVER.MAX_STEPS", 22, "MOCO.QUEUE", 48]
    cfg, lines = run(method, images, tmp_path, *SMALL, *more)
    assert warnings(cfg) == []
    assert {line["stat/positions_chance"] for line in lines} == {0.5}


def test_a_queue_larger_than_the_data_is_remarked_once(tiny):
    cfg = tiny("moco", None, "SOLVER.MAX_STEPS", 2)
    with pytest.raises(StoppedEarly):
        train(cfg, lambda step: step == 1 and os.kill(os.getpid(), signal.SIGTERM))
    train(cfg)
    assert len(warnings(cfg, "MOCO.QUEUE is 64")) == 1
    method = build_method(cfg)
    assert [line for line in remarks(cfg, 63, method) if line.startswith("MOCO.QUEUE is 64")]
    assert not [line for line in remarks(cfg, 64, method) if line.startswith("MOCO.QUEUE")]
