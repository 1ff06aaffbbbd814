"""Learning rates against those of the official runs, and where a schedule must not go wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.pretrain import config
from densessl.pretrain.engine.schedules import (
    learning_rate,
    scaled_lr,
    total_steps,
    weight_decay,
)
from densessl.pretrain.methods.dense import weighted
from densessl.pretrain.methods.dino import teacher_temperature
from densessl.pretrain.methods.momentum import cosine_momentum

GOLDEN = Path(__file__).parents[1] / "golden" / "schedules"


def solver(**options):
    node = config.defaults().SOLVER
    for name, value in options.items():
        node[name] = value
    return node


def per_epoch(options, epochs, n=7):
    """The rate of each epoch, checked to be the same over the epoch's n steps."""
    rates = [learning_rate(options, step, n) for step in range(epochs * n)]
    table = np.array(rates).reshape(epochs, n)
    assert (table == table[:, :1]).all()
    return table[:, 0]


@pytest.mark.parametrize(
    ("file", "array", "options", "epochs"),
    [
        ("moco", "lr_cos200", {}, 200),
        ("moco", "lr_step200", {"SCHEDULE": "step"}, 200),
        ("moco", "lr_cos800_lr0p06", {"BASE_LR": 0.06, "EPOCHS": 800}, 800),
        ("setsim", "lr_cos200", {}, 200),
        ("setsim", "lr_step200", {"SCHEDULE": "step"}, 200),
        ("resim", "lr_cos200", {}, 200),
        ("resim", "lr_step200", {"SCHEDULE": "step"}, 200),
        ("resim", "lr_cos800_lr0p06", {"BASE_LR": 0.06, "EPOCHS": 800}, 800),
        ("densecl", "lr_imagenet200", {}, 200),
        ("densecl", "lr_coco800", {"BASE_LR": 0.3, "EPOCHS": 800}, 800),
        ("simsiam", "lr", {"BASE_LR": 0.05, "BATCH_SIZE": 512, "EPOCHS": 100}, 100),
    ],
)
def test_per_epoch_rates_are_the_official_ones(file, array, options, epochs):
    golden = np.load(GOLDEN / f"{file}.npz")[array]
    assert golden.shape == (epochs,)
    np.testing.assert_allclose(per_epoch(solver(**options), epochs), golden, rtol=0, atol=1e-12)


def test_simsiams_predictor_stays_at_the_scaled_rate():
    golden = np.load(GOLDEN / "simsiam.npz")
    fixed = scaled_lr(solver(BASE_LR=0.05, BATCH_SIZE=512))
    assert fixed == pytest.approx(float(golden["init_lr"]), abs=1e-12)
    np.testing.assert_allclose(golden["lr_predictor_fixed"], fixed, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("file", "steps", "total"),
    [
        ("schedules/byol_openselfsup_momentum", "iters", "max_iters"),
        ("pixpro/momentum_schedule", "k", "K_total"),
    ],
)
def test_the_momentum_rises_to_one_along_a_cosine(file, steps, total):
    golden = np.load(GOLDEN.parent / f"{file}.npz")
    base, last = float(golden["base"]), int(golden[total])
    found = [cosine_momentum(base, int(step), last) for step in golden[steps]]
    np.testing.assert_allclose(found, golden["momentum"], rtol=0, atol=1e-12)


def test_densecls_dense_loss_sets_in_after_its_warm_up():
    golden = np.load(GOLDEN / "densecl_lambda_warmup.npz")
    cfg = config.defaults()
    cfg.DENSE.WARMUP_STEPS = 1000
    image, dense = torch.tensor(0.0), torch.tensor(1.0)  # so that the total is λ
    found = [weighted(cfg, int(step), image, dense)["loss"].item() for step in golden["iters"]]
    np.testing.assert_allclose(found, golden["loss_lambda"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["ep20_wu5_n10", "ep100_wu5_n3"])
def test_pixpro_warms_up_and_anneals_per_step(case):
    data = np.load(GOLDEN / "pixpro.npz")
    epochs, warmup, n, base = data[f"args_epochs_warmup_niter_base_{case}"]
    options = solver(
        BASE_LR=base,
        BATCH_SIZE=256,
        EPOCHS=int(epochs),
        WARMUP_EPOCHS=warmup,
        WARMUP_FACTOR=0.01,
        END_LR=1e-6,
        PER="step",
    )
    rates = [learning_rate(options, step, int(n)) for step in range(int(epochs * n))]
    np.testing.assert_allclose(rates, data[f"lr_{case}"], rtol=0, atol=1e-12)


def test_rate_is_scaled_with_the_batch():
    options = solver(BASE_LR=0.03, BATCH_SIZE=64)
    assert scaled_lr(options) == pytest.approx(0.03 / 4)
    assert learning_rate(options, 0, 10) == scaled_lr(options)


def test_milestones_fall_on_their_very_step_even_in_long_runs():
    options = solver(SCHEDULE="step", PER="step", EPOCHS=200)
    n, peak = 5004, scaled_lr(options)  # a million steps: rounding must not move a milestone
    for epoch, before, after in ((120, 1.0, 0.1), (160, 0.1, 0.01)):
        assert learning_rate(options, epoch * n - 1, n) == pytest.approx(before * peak)
        assert learning_rate(options, epoch * n, n) == pytest.approx(after * peak)


def test_max_steps_shortens_the_schedule():
    options = solver(MAX_STEPS=50, EPOCHS=200, PER="step")
    assert total_steps(options, 10) == 50
    rates = [learning_rate(options, step, 10) for step in range(50)]
    assert rates == sorted(rates, reverse=True)
    assert rates[25] == pytest.approx(scaled_lr(options) / 2)
    assert rates[-1] < 0.01 * rates[0]


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 9.0])
def test_tiny_runs_have_a_rate_at_every_step(schedule, steps, warmup):
    options = solver(MAX_STEPS=steps, SCHEDULE=schedule, WARMUP_EPOCHS=warmup)
    for step in range(steps):
        assert 0 < learning_rate(options, step, 4) <= scaled_lr(options)


# ------------------------------------------------------------------------------- DINO and SCFS


def dino_solver(base, final, epochs, warmup, **options):
    """DINO's solver; ``base`` is the rate after scaling."""
    batch = {"BASE_LR": base, "BATCH_SIZE": 256, "EPOCHS": int(epochs)}
    warm = {"WARMUP_EPOCHS": warmup, "WARMUP_FACTOR": 0.0, "WARMUP_INCLUSIVE": True}
    return solver(**batch, **warm, END_LR=final, PER="step", **options)


@pytest.mark.parametrize("case", ["lr", "lr_nowarm"])
def test_dinos_rate_reaches_the_peak_twice_and_the_end_never(case):
    golden = np.load(GOLDEN / "dino.npz")
    base, final, epochs, n, warmup = golden[f"{case}_args_base_final_epochs_niter_warmup"]
    options = dino_solver(base, final, epochs, warmup)
    rates = [learning_rate(options, step, int(n)) for step in range(int(epochs * n))]
    np.testing.assert_allclose(rates, golden[case], rtol=0, atol=1e-12)
    assert rates.count(max(rates)) == (2 if warmup else 1) and min(rates[5:]) > final


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5, 9.0])
def test_an_inclusive_warm_up_of_any_length_stays_below_the_peak(steps, warmup):
    options = dino_solver(0.1, 0.0, 1, warmup, MAX_STEPS=steps)
    for step in range(steps):
        assert 0 <= learning_rate(options, step, 4) <= 0.1


def test_dinos_weight_decay_rises_along_a_cosine():
    golden = np.load(GOLDEN / "dino.npz")
    base, final, epochs, n = golden["wd_args_base_final_epochs_niter_warmup"]
    options = solver(WEIGHT_DECAY=base, END_WEIGHT_DECAY=final, EPOCHS=int(epochs))
    found = [weight_decay(options, step, int(n)) for step in range(int(epochs * n))]
    np.testing.assert_allclose(found, golden["wd"], rtol=0, atol=1e-12)
    options.MAX_STEPS = 20  # which shortens it as it does the rate's schedule
    assert weight_decay(options, 10, int(n)) == pytest.approx((base + final) / 2)


def test_weight_decay_is_constant_by_default_and_may_fall_to_zero():
    options = solver(EPOCHS=10)
    assert {weight_decay(options, step, 3) for step in range(30)} == {options.WEIGHT_DECAY}
    options.END_WEIGHT_DECAY = 0.0
    assert weight_decay(options, 15, 3) == pytest.approx(options.WEIGHT_DECAY / 2)


def test_scfss_schedules():
    golden = np.load(GOLDEN / "scfs.npz")
    epochs, n = 200, 5  # the arguments of its run_pretrain.sh, five steps an epoch
    options = dino_solver(0.1, 0.0048, epochs, 10, WEIGHT_DECAY=1e-4, END_WEIGHT_DECAY=1e-4)
    steps = range(epochs * n)
    rates = [learning_rate(options, step, n) for step in steps]
    np.testing.assert_allclose(rates, golden["lr"], rtol=0, atol=1e-12)
    decays = [weight_decay(options, step, n) for step in steps]
    np.testing.assert_allclose(decays, golden["wd"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("file", ["dino", "scfs"])
def test_the_teachers_momentum_rises_to_one(file):
    golden = np.load(GOLDEN / f"{file}.npz")["momentum"]
    found = [cosine_momentum(0.996, step, len(golden)) for step in range(len(golden))]
    np.testing.assert_allclose(found, golden, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("warm", "final", "warmup"), [(0.04, 0.07, 30), (0.04, 0.04, 0)])
def test_the_teachers_temperature_rises_by_the_epoch(warm, final, warmup):
    golden = np.load(GOLDEN / "dino.npz")[f"teacher_temp_{warm}_{final}_{warmup}_100"]
    found = [teacher_temperature(warm, final, warmup, epoch) for epoch in range(100)]
    np.testing.assert_allclose(found, golden, rtol=0, atol=1e-12)


def test_a_temperature_of_one_warm_up_epoch_starts_warm():
    assert [teacher_temperature(0.04, 0.07, 1, epoch) for epoch in range(3)] == [0.04, 0.07, 0.07]
