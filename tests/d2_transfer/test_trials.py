"""Trials: their weights, evaluators, folders, stops and averages."""

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from console.errors import InputError, StoppedEarly
from d2_transfer import compat, convert, datasets, main, protocols, results, trials
from d2_transfer import weights as start

compat.setup()  # before any test imports Detectron2
ROOT = Path(__file__).resolve().parents[2]

# A detector that trains in seconds: a ResNet-18 with an FPN, tiny images, four regions each.
TINY = [
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "4", "MODEL.RPN.POST_NMS_TOPK_TEST", "4"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "TEST.PRECISE_BN.NUM_ITER", "1"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("SOLVER.IMS_PER_BATCH", "2"),
]


def tiny(iterations: int, **more) -> list[str]:
    extra = [word for pair in more.items() for word in map(str, pair)]
    return [*TINY, "SOLVER.MAX_ITER", str(iterations), *extra]


def transfer(named: str, out: Path, data: Path, overrides: list[str], *flags: str) -> list[str]:
    where = ["--protocol", "coco_mask_fpn_1x", "--mini", "-o", str(out), "--data", str(data)]
    return [str(named), *where, *flags, *overrides]


@pytest.fixture(scope="module")
def weights(tmp_path_factory, our_checkpoint):
    """A ResNet-18 checkpoint of ours."""
    return our_checkpoint(tmp_path_factory.mktemp("weights") / "backbone_final.pth", depth=18)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scenes, weights):
    """A finished run of two trials of two steps from our weights: its folder, stdout, stderr."""
    out = tmp_path_factory.mktemp("run") / "out"
    words = transfer(weights, out, scenes, tiny(2), "--trials", "2", "--seed", "5")
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        assert main.main(words) == 0
    return out, stdout.getvalue(), stderr.getvalue()


def test_trials_are_recorded_averaged_and_printed(finished, weights):
    out, printed, said = finished
    records = results.collect([out])
    assert [record.seed for record in records] == [5, 6]
    for record in records:
        assert (record.protocol, record.variant, record.mini) == (
            *("coco_mask_fpn_1x", "moco2fc"),
            True,
        )
        assert record.method == "setsim" and record.pretrain["epochs"] == 200
        assert record.weights["path"] == str(weights)
        wanted = protocols.PROTOCOLS["coco_mask_fpn_1x"].metrics
        assert all(math.isfinite(record.metrics[name]) for name in wanted)
        assert not any(name.startswith("bbox/AP-") for name in record.metrics)
        written = yaml.safe_load((record.folder / "config.yaml").read_text())
        assert results.config_fingerprint(written) == record.config_sha256
        assert written["SEED"] == record.seed
    assert records[0].config_sha256 == records[1].config_sha256
    summary = json.loads((out / "summary.json").read_text())
    average = summary["metrics"]["bbox/AP"]
    values = [record.metrics["bbox/AP"] for record in records]
    assert average["values"] == values and average["n"] == 2
    assert average["mean"] == pytest.approx(sum(values) / 2)
    assert "trial 1 (seed 5)" in printed and "mean of 2" in printed
    assert len(printed.splitlines()) == 4  # the table alone: nothing of Detectron2 or pycocotools
    assert "moco2fc (the default" in said


def test_a_run_leaves_what_every_verb_leaves(finished):
    out, *_ = finished
    assert {"config.yaml", "log.txt", "metrics.jsonl", "summary.json"} <= set(os.listdir(out))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["trial"] for line in lines} == {1, 2}
    assert any("total_loss" in line for line in lines)
    for trial in (1, 2):
        folder = out / f"trial_{trial}"
        assert "detectron2" in (folder / "log.txt").read_text()
        kept = torch.load(folder / "model_final.pth", weights_only=True)
        assert list(kept) == ["model"]
        assert [path.name for path in folder.glob("model_*")] == ["model_final.pth"]


def test_the_seed_decides_the_order_of_the_samples():
    from d2_transfer.trainer import SampleOrder

    def first(seed, done=0, count=30):
        order = iter(SampleOrder(12, seed, done))
        return [next(order) for _ in range(count)]

    assert first(1) == first(1) != first(2)
    assert first(1, done=10, count=20) == first(1)[10:]
    assert sorted(first(1)[:12]) == list(range(12))


def test_a_finished_trial_is_not_run_again(finished, scenes, weights, capsys):
    out, *_ = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("trial_*/*")}
    words = transfer(weights, out, scenes, tiny(2), "--trials", "2", "--seed", "5")
    assert main.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("trial_*/*")} == before
    assert "mean of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, says",
    [
        ({"overrides": tiny(3)}, "SOLVER.MAX_ITER 2 there, 3 here"),
        ({"named": "random"}, "weights"),
        ({"flags": ("--seed", "6")}, "seed 5 there, 6 here"),
        ({"flags": ("--variant", "4conv1fc")}, "variant 'moco2fc' there, '4conv1fc' here"),
    ],
)
def test_a_folder_of_another_run_is_refused(finished, scenes, weights, change, says):
    out, *_ = finished
    same = {"named": weights, "overrides": tiny(2), "flags": ("--seed", "5")} | change
    with pytest.raises(InputError, match="holds another run") as caught:
        main.main(
            transfer(same["named"], out, scenes, same["overrides"], "--trials", "2", *same["flags"])
        )
    assert says in str(caught.value)


def test_a_stopped_trial_is_saved_and_goes_on(tmp_path, scenes, monkeypatch):
    from d2_transfer import trainer

    count = trainer.Progress.after_step

    def press_ctrl_c_in_the_second_step(self):
        count(self)
        if self.trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGINT)

    words = transfer("random", tmp_path / "out", scenes, tiny(4), "--trials", "1")
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Progress, "after_step", press_ctrl_c_in_the_second_step)
        with pytest.raises(StoppedEarly, match="stopped at step 2 of 4, saved") as caught:
            main.main(words)
    assert caught.value.exit_code == 75
    folder = tmp_path / "out" / "trial_1"
    assert not (folder / "result.json").exists()
    saved = torch.load(folder / "model_0000001.pth", weights_only=True)
    momentum = saved["trainer"]["_trainer"]["optimizer"]["state"][0]["momentum_buffer"]
    assert momentum.abs().sum() > 0

    begun = []
    before = trainer.Trainer.before_train

    def look_then_begin(self):
        state = self.optimizer.state_dict()["state"][0]["momentum_buffer"]
        weight = self._bare_model().state_dict()["backbone.bottom_up.stem.conv1.weight"]
        begun.append((self.start_iter, state.clone(), weight.clone()))
        before(self)

    monkeypatch.setattr(trainer.Trainer, "before_train", look_then_begin)
    assert main.main(words) == 0
    [(first_step, kept, weight)] = begun
    assert first_step == 2 and torch.equal(kept, momentum)
    assert torch.equal(weight, saved["model"]["backbone.bottom_up.stem.conv1.weight"])
    assert results.load(folder).seed == 1


def test_a_loss_that_becomes_nan_ends_the_run_with_a_message(tmp_path, scenes):
    from console.errors import DenseSSLError

    overrides = tiny(6, **{"SOLVER.BASE_LR": 1e30, "SOLVER.WARMUP_ITERS": 0})
    with pytest.raises(DenseSSLError, match="lower one may train"):
        main.main(transfer("random", tmp_path / "out", scenes, overrides, "--trials", "1"))
    assert not (tmp_path / "out" / "trial_1" / "result.json").exists()


# Weights -----------------------------------------------------------------------------------------


def config(name="coco_mask_fpn_1x", overrides=()):
    return protocols.resolve(name, gpus=1, mini=True, cuda=False, overrides=overrides)


def test_a_checkpoint_is_converted_once_and_kept(tmp_path, weights):
    cfg = config(overrides=tiny(2))
    ours = start.prepare(str(weights), tmp_path, cfg)
    assert (
        Path(ours.file) == tmp_path / "weights.pkl"
        and "proof" in (tmp_path / "weights.txt").read_text()
    )
    written = Path(ours.file).stat().st_mtime_ns
    assert start.prepare(str(weights), tmp_path, cfg) == ours
    assert Path(ours.file).stat().st_mtime_ns == written
    direct = start.prepare(ours.file, tmp_path / "other", cfg)
    assert (direct.file, direct.method, direct.pretrain) == (
        *(ours.file, "setsim"),
        {"dataset": "imagenet100", "images": 126689, "epochs": 200},
    )


def test_supervised_weights_are_a_torchvision_state_dict(tmp_path, random_resnet):
    file = tmp_path / "resnet18.pth"
    torch.save(
        random_resnet(18) | {"fc.weight": torch.zeros(4, 512), "fc.bias": torch.zeros(4)}, file
    )
    ours = start.prepare(f"supervised:{file}", tmp_path, config(overrides=tiny(2)))
    assert ours.method == "supervised" and ours.path == str(file)


@pytest.mark.parametrize(
    "named, says",
    [
        ("weights.pth", "not a file"),
        ("supervised:", "names no file"),
        ("supervised:none.pth", "not a file"),
    ],
)
def test_weights_that_are_not_there_are_refused(tmp_path, named, says):
    with pytest.raises(InputError, match=says):
        start.prepare(named, tmp_path, config())


def test_weights_of_another_depth_are_refused(tmp_path, weights):
    with pytest.raises(InputError, match="DEPTH is 50, the weights need 18"):
        start.prepare(str(weights), tmp_path, config())


def test_every_backbone_tensor_must_be_the_files(tmp_path, weights):
    from detectron2.modeling import build_model

    from d2_transfer.trainer import AtomicCheckpointer

    cfg = config(overrides=tiny(2))
    file = start.prepare(str(weights), tmp_path, cfg).file
    model = build_model(cfg)
    with pytest.raises(InputError, match="did not fill the detector's backbone"):
        start.check_loaded(model, file)
    AtomicCheckpointer(model).load(file)
    assert start.check_loaded(model, file) == len(convert.read_weights(file)["model"])
    with torch.no_grad():
        model.backbone.bottom_up.res3[1].conv2.norm.running_mean[5] += 1
    with pytest.raises(InputError, match=r"1 of \d+ .*res3.1.conv2.norm.running_mean"):
        start.check_loaded(model, file)


@pytest.mark.parametrize(
    "key, name",
    [
        ("backbone.stem.conv1.weight", "stem.conv1.weight"),
        ("backbone.bottom_up.res5.2.conv3.norm.bias", "res5.2.conv3.norm.bias"),
        ("roi_heads.res5.0.shortcut.weight", "res5.0.shortcut.weight"),
        ("roi_heads.res5.norm.weight", None),
        ("roi_heads.box_predictor.cls_score.weight", None),
        ("backbone.fpn_lateral2.weight", None),
        ("proposal_generator.rpn_head.conv.weight", None),
    ],
)
def test_what_of_a_detector_is_the_backbone(key, name):
    assert start.backbone_name(key) == name


# Evaluators --------------------------------------------------------------------------------------


def detected(boxes: list, classes: list, scores: torch.Tensor):
    """Detections of one image of 64 px, as Detectron2's evaluators take them."""
    from detectron2.structures import Boxes, Instances

    found = Instances((64, 64))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.pred_boxes.clip((64, 64))
    found.pred_classes = torch.tensor(classes, dtype=torch.long)
    found.scores = scores
    return found


def evaluate(evaluator, dataset: str, masks: bool = False) -> dict:
    """The metrics of detections near the ground truth, some wrong, many of them of equal score."""
    from detectron2.data import DatasetCatalog
    from detectron2.structures import BoxMode

    generator = torch.Generator().manual_seed(0)
    evaluator.reset()
    for entry in DatasetCatalog.get(dataset):
        boxes, classes = [], []
        for each in entry["annotations"]:
            box = BoxMode.convert(each["bbox"], each["bbox_mode"], BoxMode.XYXY_ABS)
            noise = 4 * torch.rand(4, generator=generator) - 2
            boxes.append((torch.tensor(box) + noise).tolist())
            wrong = torch.rand((), generator=generator) < 0.2
            classes.append((each["category_id"] + int(wrong)) % 20)
        scores = (torch.rand(len(boxes), generator=generator) * 5).round() / 5
        found = detected(boxes, classes, scores)
        if masks:
            found.pred_masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
            for mask, (x1, y1, x2, y2) in zip(found.pred_masks, found.pred_boxes, strict=True):
                mask[int(y1) : int(y2), int(x1) : int(x2)] = True
        evaluator.process([entry], [{"instances": found}])
    return evaluator.evaluate()


def test_the_voc_metric_averages_over_the_classes_that_occur(scenes):
    from detectron2.data import DatasetCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from d2_transfer.evaluators import OccurringClassesVOCEvaluator

    datasets.register(scenes)
    ours = evaluate(OccurringClassesVOCEvaluator("voc_2007_test"), "voc_2007_test")["bbox"]
    original = evaluate(PascalVOCDetectionEvaluator("voc_2007_test"), "voc_2007_test")["bbox"]
    entries = DatasetCatalog.get("voc_2007_test")
    occurring = {each["category_id"] for entry in entries for each in entry["annotations"]}
    assert 0 < len(occurring) < 20 and original["AP50"] > 0
    for name in ("AP", "AP50", "AP75"):  # the original counts an absent class as 0
        assert ours[name] == pytest.approx(original[name] * 20 / len(occurring), rel=1e-12)


def test_the_voc_metric_is_the_original_where_every_class_occurs(scenes, tmp_path):
    import shutil

    from detectron2.data.datasets.pascal_voc import CLASS_NAMES
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from d2_transfer.evaluators import OccurringClassesVOCEvaluator

    copy = tmp_path / "data"
    shutil.copytree(scenes, copy)
    folder = copy / "VOC2007"
    names = (folder / "ImageSets/Main/test.txt").read_text().split()
    for place, name in enumerate(names):  # every class somewhere
        objects = "".join(
            f"<object><name>{word}</name><pose>Left</pose><truncated>0</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{4 + k}</xmin><ymin>9</ymin>"
            f"<xmax>{34 + k}</xmax><ymax>{40 + place}</ymax></bndbox></object>"
            for k, word in enumerate(CLASS_NAMES[place::3])
        )
        size = "<size><width>64</width><height>64</height><depth>3</depth></size>"
        file = folder / "Annotations" / f"{name}.xml"
        file.unlink()  # it may be one file with the scenes' own
        file.write_text(f"<annotation>{size}{objects}</annotation>")
    datasets.register(copy)
    ours = evaluate(OccurringClassesVOCEvaluator("voc_2007_test"), "voc_2007_test")["bbox"]
    original = evaluate(PascalVOCDetectionEvaluator("voc_2007_test"), "voc_2007_test")["bbox"]
    assert original["AP"] > 0 and ours == original


def test_the_fast_coco_metrics_are_those_of_pycocotools(scenes):
    datasets.register(scenes)
    slow, fast = (
        evaluate(compat.coco_evaluator("coco_2017_val", fast=fast), "coco_2017_val", masks=True)
        for fast in (False, True)
    )
    assert set(slow) == {"bbox", "segm"} and all(slow[task]["AP"] > 0 for task in slow)
    for task in slow:  # every metric of every class; NaN where a class is absent
        assert fast[task] == pytest.approx(slow[task], rel=1e-12, nan_ok=True)


def test_a_detector_without_detections_has_an_ap_of_zero():
    from d2_transfer.evaluators import flat_metrics

    nan = float("nan")
    nothing = {"bbox": dict.fromkeys(("AP", "AP50", "AP75", "APs", "AP-bird"), nan)}
    flat = flat_metrics(nothing)
    assert {name: flat[f"bbox/{name}"] for name in ("AP", "AP50", "AP75")} == {
        **{"AP": 0.0, "AP50": 0.0},
        "AP75": 0.0,
    }
    some = flat_metrics({"bbox": {"AP": 7.0, "APs": nan, "AP-bird": 3.0}})
    assert some["bbox/AP"] == 7 and math.isnan(some["bbox/APs"]) and "bbox/AP-bird" not in some


# Folders and averages ----------------------------------------------------------------------------


def test_checkpoints_are_replaced_whole(tmp_path):
    from d2_transfer.trainer import AtomicCheckpointer, steps_done

    model = torch.nn.Linear(2, 2)
    checkpointer = AtomicCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000004", iteration=4)
    assert steps_done(tmp_path) == 5
    checkpointer.save("model_0000009", iteration=9)
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000009.pth", "last_checkpoint"}
    assert steps_done(tmp_path) == 10
    assert checkpointer.resume_or_load("")["iteration"] == 9


def test_what_a_killed_trial_logged_beyond_its_checkpoint_is_forgotten(tmp_path):
    lines = tmp_path / "metrics.jsonl"
    rows = [{"trial": t, "iteration": i} for t in (1, 2) for i in (20, 40)]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"trial": 2, "iter')
    trials._cut_back(lines, trial=2, steps=20)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == rows[:3]


def test_one_trial_has_no_standard_deviation_and_three_have_the_samples(tmp_path):
    run = trials.Run(
        *(tmp_path, "voc_det_c4", "", True),
        start.Weights("", "random", "", "random"),
        tmp_path,
    )

    def record(value):
        return results.Record(
            *("random", {"path": "random", "sha256": ""}, {}, "voc_det_c4", "", 1),
            *({"bbox/AP": value, "bbox/APs": float("nan")}, "", {}, results.now(), results.now()),
        )

    one = trials.summary(run, [record(3.0)])["metrics"]
    assert one == {"bbox/AP": {"mean": 3.0, "std": None, "n": 1, "values": [3.0]}}
    three = trials.summary(run, [record(1.0), record(2.0), record(6.0)])["metrics"]["bbox/AP"]
    assert (three["mean"], three["n"]) == (3.0, 3)
    assert three["std"] == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert "3.00 ± 2.65" in trials.table(run, [record(1.0), record(2.0), record(6.0)])


# Whole trials ------------------------------------------------------------------------------------


def run_command(words: list[str], **options):
    return subprocess.run(
        [sys.executable, "densessl.py", "transfer", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_sigterm_ends_with_75_and_the_same_command_goes_on(tmp_path, scenes):
    words = transfer("random", tmp_path / "out", scenes, tiny(45), "--trials", "1")
    process = subprocess.Popen(
        [sys.executable, "densessl.py", "transfer", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = tmp_path / "out" / "metrics.jsonl"
    while not lines.exists() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 75, said
    assert "the same command goes on" in said
    done = run_command(words)
    assert done.returncode == 0, done.stderr
    first = json.loads(lines.read_text().splitlines()[0])
    assert first["iteration"] == 20
    assert results.load(tmp_path / "out" / "trial_1").seed == 1


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["voc_det_c4", "coco_mask_fpn_1x"])
def test_a_resnet_50_from_our_checkpoint_goes_through(tmp_path, scenes, our_checkpoint, protocol):
    weights = our_checkpoint(tmp_path / "backbone_final.pth", depth=50)
    words = [str(weights), "--protocol", protocol, "--mini", "--trials", "1"]
    out = ["-o", str(tmp_path / "out"), "--data", str(scenes)]
    done = run_command([*words, *out, "SOLVER.MAX_ITER", "2", "TEST.PRECISE_BN.NUM_ITER", "1"])
    assert done.returncode == 0, done.stderr
    record = results.load(tmp_path / "out" / "trial_1")
    assert record.method == "setsim"
    assert all(math.isfinite(record.metrics[k]) for k in protocols.PROTOCOLS[protocol].metrics)


@pytest.mark.slow
def test_two_processes_train_one_trial(tmp_path, scenes):
    words = transfer("random", tmp_path / "out", scenes, tiny(3), "--trials", "1", "--gpus", "2")
    done = run_command(words, timeout=600)
    assert done.returncode == 0, done.stderr
    assert math.isfinite(results.load(tmp_path / "out" / "trial_1").metrics["bbox/AP"])
