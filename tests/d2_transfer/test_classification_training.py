"""Training classifiers: against a plain loop, stopped and resumed, and searched for."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.core import waiting
from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import classification
from densessl.d2_transfer.classification import search
from densessl.d2_transfer.classification.accuracy import Counts, likeliest
from densessl.d2_transfer.classification.data import read
from densessl.d2_transfer.classification.fit import Diverged, Fit
from densessl.d2_transfer.classification.loading import Order, TrainingCrops
from densessl.d2_transfer.classification.models import Classifier, LinearClassifier
from densessl.d2_transfer.classification.networks import build_backbone
from densessl.d2_transfer.classification.settings import Schedule, Setting, configured
from densessl.d2_transfer.stops import stoppable

SMALL = [
    *("INPUT.SIZE", "16", "INPUT.RESIZE", "16"),
    *("SOLVER.IMS_PER_BATCH", "8", "SOLVER.REFERENCE_BATCH", "8"),
]


def config(protocol, *overrides, steps=6):
    words = [*SMALL, "SOLVER.MAX_ITER", str(steps), "SOLVER.CHECKPOINT_PERIOD", "2", *overrides]
    variant = "voc_objects" if protocol == "finetune_cls" else None
    return classification.resolve(protocol, variant, mini=True, overrides=words, cuda=False)


@pytest.fixture(scope="module")
def objects(scenes):
    """Some training and test images of 8 classes."""
    torch.set_num_threads(1)
    train, test = read(config("linear"), scenes)
    return train.subset(range(24)), test.subset(range(12))


def make(cfg, classes=8, rates=(0.1,), setting=None):
    backbone = build_backbone("resnet18", "", 16, 0)
    if cfg.TASK == "linear":
        return LinearClassifier(backbone, classes, rates, cfg)
    return Classifier(backbone, classes, setting or configured(cfg), cfg)


class StopsAfter(Fit):
    """Asks itself to stop after a step, as a signal would; or ends there, as a kill would."""

    last, kill = 0, False

    def _one_step(self, images, labels):
        loss = super()._one_step(images, labels)
        if self.step + 1 == self.last:
            if self.kill:
                raise KeyboardInterrupt
            waiting.ask()
        return loss


def fit_of(cfg, objects, folder, rates=(0.1,), last=0, kill=False, setting=None):
    folder.mkdir(parents=True, exist_ok=True)
    setting = setting or configured(cfg)
    model = make(cfg, rates=rates, setting=setting)
    fit = StopsAfter(cfg, model, setting, *objects, folder, folder / "metrics.jsonl", 1, "trial")
    fit.last, fit.kill = last, kill
    return fit


def run(fit):
    with stoppable():
        return fit.run()


def state(fit):
    return {name: t.clone() for name, t in fit.model.trained.state_dict().items()}


def lines(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- linear classifiers ----


def test_a_linear_classifier_is_a_plain_loop_over_frozen_features(objects, tmp_path):
    cfg = config("linear", "SOLVER.BASE_LR", "0.3", "SOLVER.WEIGHT_DECAY", "0.001")
    fit = fit_of(cfg, objects, tmp_path, rates=(0.3,))
    layer = torch.nn.Linear(512, 8)
    layer.load_state_dict(fit.model.trained.layers[0].state_dict())
    backbone = build_backbone("resnet18", "", 16, 0).eval()
    frozen = {name: t.clone() for name, t in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(layer.parameters(), 0.3, momentum=0.9, weight_decay=0.001)
    crops = TrainingCrops(objects[0], cfg)
    for step, batch in enumerate(Order(24, 8, cfg.SEED, 0, 6, 0, 1)):
        images, labels = zip(*(crops[draw] for draw in batch), strict=True)
        epoch = step * 8 // 24  # 6 steps of 8 are 2 epochs of 24
        optimizer.param_groups[0]["lr"] = 0.3 * 0.5 * (1 + np.cos(np.pi * epoch / 2))
        with torch.no_grad():
            features = backbone(torch.stack(images))
        optimizer.zero_grad()
        F.cross_entropy(layer(features), torch.tensor(labels)).backward()
        optimizer.step()
    counts = run(fit)
    assert torch.allclose(fit.model.trained.layers[0].weight, layer.weight, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(t, frozen[n]) for n, t in fit.model.backbone.state_dict().items())
    with torch.no_grad():
        from densessl.d2_transfer.classification.loading import EvaluationCrops

        images = torch.stack([EvaluationCrops(objects[1], cfg)[n][0] for n in range(12)])
        predicted = layer(backbone(images)).argmax(1).numpy()
    assert counts.top1() == pytest.approx(100 * (predicted == objects[1].labels).mean())


def test_classifiers_of_other_rates_change_nothing(objects, tmp_path):
    cfg = config("linear", "SOLVER.BASE_LR", "0.3")
    together = fit_of(cfg, objects, tmp_path / "all", rates=(0.3, 0.01, 1e6))
    run(together)
    alone = fit_of(cfg, objects, tmp_path / "one", rates=(0.3,))
    run(alone)
    assert torch.equal(
        alone.model.trained.layers[0].weight, together.model.trained.layers[0].weight
    )
    slow = config("linear", "SOLVER.BASE_LR", "0.01")
    second = fit_of(slow, objects, tmp_path / "two", rates=(0.01,))
    run(second)
    layers = second.model.trained.layers[0], together.model.trained.layers[1]
    assert torch.allclose(layers[0].weight, layers[1].weight, rtol=1e-6, atol=1e-8)


# ---- stops ----


@pytest.mark.parametrize("protocol", ["linear", "finetune_cls"])
@pytest.mark.parametrize("last, kill, amp", [(3, False, ""), (5, True, ""), (1, True, "bfloat16")])
def test_a_training_that_was_stopped_goes_on_bit_for_bit(
    protocol, last, kill, amp, objects, tmp_path
):
    words = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", amp] if amp else []
    # Of a map of 1 x 1, which 16 px end in, PyTorch leaves gradients of bfloat16 unset on a CPU.
    words += ["INPUT.SIZE", "32", "INPUT.RESIZE", "32"] if amp else []
    cfg = config(protocol, "TEST.EVAL_PERIOD", "1.0", "SOLVER.BASE_LR", "0.05", *words)
    whole = fit_of(cfg, objects, tmp_path / "whole", rates=(0.05, 0.5))
    expected = run(whole)
    stopped = fit_of(cfg, objects, tmp_path / "parts", rates=(0.05, 0.5), last=last, kill=kill)
    with pytest.raises(KeyboardInterrupt if kill else StoppedEarly):
        run(stopped)
    again = fit_of(cfg, objects, tmp_path / "parts", rates=(0.05, 0.5))
    counts = run(again)
    there, here = state(whole), state(again)
    assert there.keys() == here.keys() and all(torch.equal(there[k], here[k]) for k in there)
    assert torch.equal(counts.hits, expected.hits) and again.best == whole.best
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    assert [line["epoch"] for line in lines(tmp_path / "whole") if "epoch" in line] == [1.0, 2.0]


def test_a_finished_training_is_only_evaluated(objects, tmp_path):
    cfg = config("linear")
    expected = run(fit_of(cfg, objects, tmp_path))
    again = fit_of(cfg, objects, tmp_path, last=1, kill=True)
    assert torch.equal(run(again).hits, expected.hits)


def test_a_checkpoint_of_other_images_or_a_damaged_one_is_refused(objects, tmp_path):
    cfg = config("linear")
    run(fit_of(cfg, objects, tmp_path))
    other = objects[0].subset(range(20)), objects[1]
    with pytest.raises(InputError, match="other training images"):
        run(fit_of(cfg, other, tmp_path))
    for saved in tmp_path.glob("model_*.pth"):
        saved.write_bytes(b"PK")
    with pytest.raises(InputError, match="every checkpoint .* is damaged .*or remove them"):
        run(fit_of(cfg, objects, tmp_path))


def test_a_loss_that_is_not_finite_ends_the_training(objects, tmp_path):
    cfg = config("finetune_cls", "SOLVER.BASE_LR", "1e18")
    with pytest.raises(Diverged, match=r"at step 6: the loss is nan with base_lr 1e\+18"):
        run(fit_of(cfg, objects, tmp_path))


# ---- the whole network ----


def test_the_new_layer_has_a_rate_of_its_own(objects, tmp_path):
    cfg = config("finetune_cls", "SOLVER.BASE_LR", "0.01", steps=1)
    moved = {}
    for factor in (1.0, 10.0):
        setting = Setting(0.01, 0.0, factor)
        fit = fit_of(cfg, objects, tmp_path / str(factor), setting=setting)
        before = state(fit)
        run(fit)
        moved[factor] = {k: t - before[k] for k, t in state(fit).items() if k.endswith("weight")}
    # A weight is rounded after its step, and that error is multiplied by ten, too.
    rounding = 11 * torch.finfo(torch.float32).eps * before["fc.weight"].abs().max().item()
    ours, tenfold = moved[10.0]["fc.weight"], 10 * moved[1.0]["fc.weight"]
    assert torch.allclose(ours, tenfold, rtol=1e-5, atol=rounding)
    assert ours.abs().max() > 1000 * rounding
    name = "backbone.network.conv1.weight"
    assert torch.equal(moved[10.0][name], moved[1.0][name]) and moved[1.0][name].abs().max() > 0


def test_fine_tuning_learns_its_training_images(objects, tmp_path):
    crops = ["INPUT.CROP_SCALE", "(0.9, 1.0)"]
    cfg = config("finetune_cls", "SOLVER.BASE_LR", "0.02", *crops, steps=60)
    train = objects[0]
    fit = fit_of(cfg, (train, train), tmp_path)
    assert run(fit).top1() > 60


# ---- search ----


def searching(cfg, objects, folder):
    built = []

    def build(setting):
        built.append(setting)
        return make(cfg, setting=setting)

    with stoppable():
        return *search.choose(cfg, objects[0], folder, build), built


def test_a_search_takes_what_does_best_on_held_out_images(objects, tmp_path):
    rates, factors = ["SEARCH.BASE_LR", "(1e18, 0.05)"], ["SEARCH.HEAD_LR_FACTOR", "(1.0, 5.0)"]
    cfg = config("finetune_cls", *rates, *factors)
    setting, told, built = searching(cfg, objects, tmp_path)
    tried = json.loads((tmp_path / "choice.json").read_text())["tried"]
    assert [(row["base_lr"], row["head_lr_factor"]) for row in tried] == [
        *((1e18, 1.0), (1e18, 5.0)),
        *((0.05, 1.0), (0.05, 5.0)),
    ]
    best = max(tried, key=lambda row: row["top1"])
    assert tried[0]["top1"] == 0 and told["search/top1"] == best["top1"]
    assert (setting.base_lr, setting.head_lr_factor) == (best["base_lr"], best["head_lr_factor"])
    assert len(built) == 4 and not list(tmp_path.rglob("model_*"))
    again, _, built = searching(cfg, objects, tmp_path)
    assert again == setting and not built


def test_a_stopped_search_does_not_train_the_finished_settings_again(
    objects, tmp_path, monkeypatch
):
    cfg = config("finetune_cls", "SEARCH.BASE_LR", "(0.05, 0.1, 0.2)")
    monkeypatch.setattr(search, "Fit", StopsAfter)
    monkeypatch.setattr(StopsAfter, "last", 3)
    with pytest.raises(StoppedEarly):
        searching(cfg, objects, tmp_path)
    monkeypatch.setattr(StopsAfter, "last", 0)
    setting, told, built = searching(cfg, objects, tmp_path)
    whole, of_whole, _ = searching(cfg, objects, tmp_path / "whole")
    assert (setting, told) == (whole, of_whole) and len(built) == 3
    assert (tmp_path / "001/score.json").read_text() == (
        tmp_path / "whole/001/score.json"
    ).read_text()


def test_no_grid_no_search(objects, tmp_path):
    cfg = config("finetune_cls", "SEARCH.BASE_LR", "()", "SOLVER.BASE_LR", "0.07")
    setting, told, built = searching(cfg, objects, tmp_path)
    assert setting == Setting(0.07, 0.0, 1.0) and told == {} and not built


# ---- schedule, counts ----


def test_evaluations_come_once_a_period_and_at_the_end():
    cfg = config("linear", "TEST.EVAL_PERIOD", "0.5", steps=10)
    schedule = Schedule(cfg, 24, configured(cfg))  # half an epoch is 1.5 steps of 8
    assert [step for step in range(11) if schedule.evaluates(step)] == [2, 3, 5, 6, 8, 9, 10]
    cfg = config("linear", steps=10)
    assert [s for s in range(11) if Schedule(cfg, 24, configured(cfg)).evaluates(s)] == [10]


def test_accuracies_are_counted_per_classifier_and_class():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 300, 7, generator=generator)
    labels = torch.randint(0, 6, (300,), generator=generator)  # class 6 has no image
    counts = Counts(2, 7, torch.device("cpu"))
    for part in (slice(0, 130), slice(130, 300)):
        counts.add(likeliest(logits[:, part]), labels[part])
    for n, of_one in enumerate(logits):
        order = of_one.argsort(1, descending=True)
        hit = order == labels[:, None]
        assert counts.top1(n) == pytest.approx(100 * hit[:, 0].double().mean().item())
        assert counts.top5(n) == pytest.approx(100 * hit[:, :5].any(1).double().mean().item())
        shares = [hit[labels == c, 0].double().mean().item() for c in range(6)]
        assert counts.mean_class(n) == pytest.approx(100 * np.mean(shares))
    assert counts.best() == int(counts.top1(1) > counts.top1(0))


def test_logits_that_are_not_finite_are_no_hits_and_ties_go_to_the_lower_class():
    logits = torch.tensor([[[float("nan"), 1.0, 0.0], [2.0, 2.0, 1.0]]])
    assert likeliest(logits).tolist() == [[[-1, -1, -1], [0, 1, 2]]]
    counts = Counts(1, 3, torch.device("cpu"))
    counts.add(likeliest(logits), torch.tensor([0, 0]))
    assert counts.top1() == 50 and np.isnan(counts.top5())
