"""The poly rate against its formula, and the decay of every parameter."""

import pytest

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, solver

compat.setup()
import torch  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.solver import build_optimizer  # noqa: E402

from densessl.d2_transfer import modeling  # noqa: E402, F401  (registers the segmentor)


def config(name="voc_semseg_fcn_d8", *overrides):
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / f"{name}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    return cfg


def optimizer(*rates):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def run(scheduler, steps):
    """The rates of each step, one list a group."""
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return [list(rates) for rates in zip(*found, strict=True)]


def poly(base, step, total, power=0.9, floor=1e-4):
    return (base - floor) * (1 - step / total) ** power + floor


def test_the_curve_is_the_formula_for_every_group():
    scheduler = solver.PolyLR(optimizer(0.01, 0.1), max_iter=50, power=0.9, min_lr=1e-4)
    assert isinstance(scheduler, compat.lr_scheduler_class())
    slow, fast = run(scheduler, 50)
    assert slow == pytest.approx([poly(0.01, t, 50) for t in range(50)], rel=1e-12)
    assert fast == pytest.approx([poly(0.1, t, 50) for t in range(50)], rel=1e-12)


def test_it_starts_at_the_base_and_ends_at_the_floor():
    scheduler = solver.build_lr_scheduler(config(), optimizer(0.01))
    assert scheduler.get_last_lr() == [0.01]
    scheduler.last_epoch = 19999
    assert scheduler.get_lr() == pytest.approx([1e-4 + 0.0099 * (1 / 20000) ** 0.9], rel=1e-12)
    for done in (20000, 20001):
        scheduler.last_epoch = done
        assert scheduler.get_lr() == [1e-4]
    scheduler.last_epoch = 10000
    assert scheduler.get_lr() == pytest.approx([0.005405], abs=1e-6)  # 0.0099 * 0.535887 + 1e-4


def test_a_resumed_run_goes_on_where_it_stopped():
    whole = run(solver.PolyLR(optimizer(0.01), 20, 0.9, 1e-4), 20)[0]
    first = solver.PolyLR(optimizer(0.01), 20, 0.9, 1e-4)
    run(first, 8)
    held = [first.state_dict(), first.optimizer.state_dict()]
    second = solver.PolyLR(optimizer(0.01), 20, 0.9, 1e-4)
    second.optimizer.load_state_dict(held[1])
    second.load_state_dict(held[0])
    assert run(second, 12)[0] == pytest.approx(whole[8:], rel=1e-12)


def test_its_state_is_plain_and_leaves_the_curve_to_the_config(tmp_path):
    scheduler = solver.PolyLR(optimizer(0.01), 20, 0.9, 1e-4)
    run(scheduler, 3)
    torch.save(scheduler.state_dict(), tmp_path / "state.pth")
    held = torch.load(tmp_path / "state.pth", weights_only=True)
    assert held == {"base_lrs": [0.01], "last_epoch": 3}


@pytest.mark.parametrize(
    "options",
    [
        {"max_iter": 0, "power": 0.9, "min_lr": 0.0},
        {"max_iter": 10, "power": 0.0, "min_lr": 0.0},
        {"max_iter": 10, "power": 0.9, "min_lr": 0.02},
        {"max_iter": 10, "power": 0.9, "min_lr": -0.1},
    ],
)
def test_a_rate_that_would_not_fall_is_refused(options):
    with pytest.raises(InputError, match="PolyLR with SOLVER.MAX_ITER"):
        solver.PolyLR(optimizer(0.01), **options)


def test_a_warm_up_is_refused_with_poly():
    cfg = config("voc_semseg_fcn_d8", "SOLVER.WARMUP_ITERS", 10)
    with pytest.raises(InputError, match="SOLVER.WARMUP_ITERS is 10"):
        solver.build_lr_scheduler(cfg, optimizer(0.01))


def test_an_unknown_schedule_is_refused():
    cfg = config("voc_semseg_fcn_d8", "SOLVER.LR_SCHEDULER_NAME", "PolyLr")
    with pytest.raises(InputError, match="SOLVER.LR_SCHEDULER_NAME is 'PolyLr'"):
        solver.build_lr_scheduler(cfg, optimizer(0.01))


def test_mocos_steps_are_detectron2s_without_a_warm_up():
    cfg = config("voc_semseg_moco_fcn", "SOLVER.STEPS", (14, 18), "SOLVER.MAX_ITER", 20)
    rates = run(solver.build_lr_scheduler(cfg, optimizer(0.003)), 20)[0]
    assert rates == pytest.approx([0.003] * 14 + [0.0003] * 4 + [0.00003] * 2)


@pytest.mark.parametrize(
    "name, weights, norms",
    [("voc_semseg_fcn_d8", 5e-4, 5e-4), ("voc_semseg_moco_fcn", 1e-4, 0.0)],
)
def test_every_parameter_decays_as_the_paper_says(name, weights, norms):
    cfg = config(name, "MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN")
    with torch.device("meta"):
        cfg.MODEL.DEVICE = "meta"
        model = build_model(cfg)
        built = build_optimizer(cfg, model)
    decay = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    of_norms = {name for name, p in model.named_parameters() if ".norm." in name}
    assert len(of_norms) > 100
    found = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert {found[name] for name in of_norms} == {norms}
    assert {found[name] for name in found.keys() - of_norms} == {weights}
    assert "sem_seg_head.main.classifier.bias" in found
    assert {group["momentum"] for group in built.param_groups} == {0.9}
