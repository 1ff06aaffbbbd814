"""Trials: their weights, evaluators, folders, stops and averages."""

import contextlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from densessl.core import files
from densessl.core.errors import InputError, StoppedEarly
from densessl.core.metrics import Metrics
from densessl.d2_transfer import compat, convert, main, protocols, results, trials
from densessl.d2_transfer import weights as start
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.summary import summary, table

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


TRAINED = ["model_final.pth", "model_final.pth.sha256"]  # what of a finished training is kept


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
        of_classes = [v for name, v in record.metrics.items() if name.startswith("segm/AP-")]
        assert len(of_classes) == 80 and record.metrics["segm/AP"] == pytest.approx(
            sum(value for value in of_classes if value == value)
            / sum(value == value for value in of_classes)
        )
        written = yaml.safe_load((record.folder / "config.yaml").read_text())
        assert results.config_fingerprint(written) == record.config_sha256
        assert written["SEED"] == record.seed
    assert records[0].config_sha256 == records[1].config_sha256
    averages = json.loads((out / "summary.json").read_text())
    average = averages["metrics"]["bbox/AP"]
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
        assert sorted(path.name for path in folder.glob("model_*")) == TRAINED


def test_a_finished_trial_is_not_run_again(finished, scenes, weights, capsys):
    out, *_ = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("trial_*/*")}
    words = transfer(weights, out, scenes, tiny(2), "--trials", "2", "--seed", "5")
    assert main.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("trial_*/*")} == before
    assert "mean of 2" in capsys.readouterr().out


def test_trials_in_processes_of_their_own_make_the_run_that_one_process_makes(
    finished, tmp_path, scenes, weights, capsys
):
    whole, *_ = finished
    for trial in ("2", "1"):
        words = transfer(weights, tmp_path, scenes, tiny(2), "--trials", "2", "--seed", "5")
        assert main.main([*words, "--trial", trial]) == 0
        printed = capsys.readouterr().out
        assert f"trial {trial} (seed {4 + int(trial)})" in printed
        averages = json.loads((tmp_path / "summary.json").read_text())
        assert averages["seeds"] == ([6] if trial == "2" else [5, 6])
        assert trial in (tmp_path / f"log_trial_{trial}.txt").read_text()
        lines = (tmp_path / f"trial_{trial}" / "metrics.jsonl").read_text().splitlines()
        assert {json.loads(line)["trial"] for line in lines} == {int(trial)}
    assert not (tmp_path / "metrics.jsonl").exists()
    assert averages["metrics"] == json.loads((whole / "summary.json").read_text())["metrics"]


def test_a_trial_that_another_process_is_busy_with_is_refused(tmp_path, scenes):
    holder = f"""
from pathlib import Path
from densessl.core.lock import locked
with locked(Path({str(tmp_path / "trial_1" / ".lock")!r}), str):
    print("held", flush=True)
    input()
"""
    (tmp_path / "trial_1").mkdir()
    program = [sys.executable, "-c", holder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, cwd=ROOT, **pipes) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match=f"trial 1 in .* in use .*process {other.pid} on"):
            main.main(transfer("random", tmp_path, scenes, tiny(1), "--trials", "1"))
        other.communicate(b"\n")
    assert not (tmp_path / "trial_1" / "config.yaml").exists()


def test_a_seed_of_another_trial_is_refused_before_any_runs(tmp_path, scenes, capsys):
    words = transfer("random", tmp_path, scenes, tiny(1), "--trials", "2", "--seed", "5")
    assert main.main([*words, "--trial", "2"]) == 0
    words = transfer("random", tmp_path, scenes, tiny(1), "--trials", "2", "--seed", "7")
    with pytest.raises(InputError, match="seed 6 there, 8 here"):
        main.main(words)
    assert not (tmp_path / "trial_1").exists()


@pytest.mark.parametrize("trial", ["0", "3"])
def test_a_trial_beyond_the_number_of_trials_is_refused(tmp_path, trial):
    words = transfer("random", tmp_path / "out", tmp_path, [], "--trials", "2", "--trial", trial)
    with pytest.raises(InputError, match=f"--trial is {trial}; allowed with --trials 2: 1 to 2"):
        main.main(words)
    assert not (tmp_path / "out").exists()


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


def as_of_main(out, options: dict) -> None:
    """Turn a run's files into those that the official main of Detectron2 would have left."""
    run = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(run | {"detectron2": "0.6"}))
    for folder in (out, out / "trial_1", out / "trial_2"):
        config = yaml.safe_load((folder / "config.yaml").read_text()) | options
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if folder != out:
            record = json.loads((folder / "result.json").read_text())
            record["versions"]["detectron2"] = "0.6"
            record["config_sha256"] = results.config_fingerprint(config)
            (folder / "result.json").write_text(json.dumps(record))


def test_a_run_of_another_version_of_detectron2_goes_on(finished, tmp_path, scenes, weights):
    out = shutil.copytree(finished[0], tmp_path / "out")
    as_of_main(out, {"FLOAT32_PRECISION": ""})
    words = transfer(weights, out, scenes, tiny(2), "--trials", "2", "--seed", "5")
    assert main.main(words) == 0
    assert {each.versions["detectron2"] for each in results.collect([out])} == {"0.6"}
    as_of_main(out, {"FLOAT32_PRECISION": "high"})
    with pytest.raises(InputError) as caught:
        main.main(words)
    assert "FLOAT32_PRECISION 'high' there, (absent) here" in str(caught.value)
    assert f"Detectron2 0.6 there, {compat.version()} here" in str(caught.value)


def test_a_stopped_trial_is_saved_and_goes_on(tmp_path, scenes, monkeypatch):
    from densessl.d2_transfer import hooks, trainer

    count = hooks.TrialBar.after_step

    def press_ctrl_c_in_the_second_step(self):
        count(self)
        if self.trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGINT)

    words = transfer("random", tmp_path / "out", scenes, tiny(4), "--trials", "1")
    with monkeypatch.context() as patched:
        patched.setattr(hooks.TrialBar, "after_step", press_ctrl_c_in_the_second_step)
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


def test_a_resumed_trial_is_the_same_as_an_undisturbed_one(tmp_path, scenes, monkeypatch):
    """Bit for bit: weights, PreciseBN's statistics and metrics; other numbers of workers, too."""
    from densessl.d2_transfer import hooks

    def go(name, workers):
        overrides = tiny(4, **{"DATALOADER.NUM_WORKERS": workers})
        words = transfer("random", tmp_path / name, scenes, overrides, "--trials", "1")
        assert main.main(words) == 0
        folder = tmp_path / name / "trial_1"
        model = torch.load(folder / "model_final.pth", weights_only=True)["model"]
        return model, results.load(folder).metrics

    whole, metrics = go("whole", 0)
    count = hooks.TrialBar.after_step

    def press_ctrl_c_in_the_second_step(self):
        count(self)
        if self.trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(hooks.TrialBar, "after_step", press_ctrl_c_in_the_second_step)
        with pytest.raises(StoppedEarly):
            go("parts", 1)
    parts, same = go("parts", 1)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert same == pytest.approx(metrics, nan_ok=True, rel=0, abs=0)


def test_a_loss_that_becomes_nan_ends_the_trial_with_a_message(tmp_path, scenes):
    from densessl.core.errors import DenseSSLError

    overrides = tiny(6, **{"SOLVER.BASE_LR": 1e18, "SOLVER.WARMUP_ITERS": 0})
    with pytest.raises(DenseSSLError, match="1 of 1 trials failed.*lower one may train") as caught:
        main.main(transfer("random", tmp_path / "out", scenes, overrides, "--trials", "1"))
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out" / "trial_1" / "result.json").exists()


def test_a_failed_trial_does_not_lose_the_others(tmp_path, scenes, monkeypatch, capsys):
    from densessl.core.errors import DenseSSLError
    from densessl.d2_transfer import hooks

    count = hooks.TrialBar.after_step

    def fail_in_the_second_trial(self):
        count(self)
        if self.trial == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    words = transfer("random", tmp_path / "out", scenes, tiny(2), "--trials", "3")
    with monkeypatch.context() as patched:
        patched.setattr(hooks.TrialBar, "after_step", fail_in_the_second_trial)
        with pytest.raises(DenseSSLError, match="1 of 3 trials failed.*trial 2: .*illegal memory"):
            main.main(words)
    printed = capsys.readouterr().out
    assert "mean of 2" in printed and "seed 3" in printed and "seed 2" not in printed
    assert "illegal memory" in (tmp_path / "out" / "log.txt").read_text()
    kept = {n: (tmp_path / "out" / f"trial_{n}" / "result.json").read_bytes() for n in (1, 3)}
    assert main.main(words) == 0  # runs the failed one alone
    assert "mean of 3" in capsys.readouterr().out
    for n, before in kept.items():
        assert (tmp_path / "out" / f"trial_{n}" / "result.json").read_bytes() == before


def test_a_trained_model_is_evaluated_again_with_the_same_numbers(
    finished, scenes, tmp_path, capsys
):
    out, *_ = finished
    record = results.load(out / "trial_1")
    words = transfer(out / "trial_1", tmp_path / "again", scenes, tiny(2), "--eval-only")
    assert main.main(words) == 0
    held = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    found = {k: math.nan if v is None else v for k, v in held["metrics"].items()}
    assert found == pytest.approx(record.metrics, nan_ok=True, rel=0, abs=0)
    assert held["method"] == "setsim" and held["config_sha256"] == record.config_sha256
    assert "bbox/AP" in capsys.readouterr().out
    assert main.main(words) == 0  # the same one in the same folder is done anew
    again = results.load(tmp_path / "again")
    assert again.metrics == pytest.approx(record.metrics, nan_ok=True, rel=0, abs=0)
    assert again.evaluated == held["model"] and not record.evaluated
    for name in ("method", "weights", "pretrain", "protocol", "variant", "seed", "mini"):
        assert getattr(again, name) == getattr(record, name)
    assert results.config_fingerprint(results.config_of(again)) == record.config_sha256
    other = transfer(out / "trial_2", tmp_path / "again", scenes, tiny(2), "--eval-only")
    with pytest.raises(InputError, match="name another -o"):
        main.main(other)


def test_the_record_of_an_evaluation_is_read_by_tables_and_says_what_it_is(
    finished, scenes, tmp_path, capsys
):
    from densessl.d2_transfer.tables.main import main as table_verb

    out, *_ = finished
    trial = tmp_path / "run" / "trial_1"
    shutil.copytree(out / "trial_1", trial)
    (trial / "result.json").unlink()  # as an evaluation that failed leaves it
    shutil.copy(out / "run.json", trial.parent)
    words = transfer(trial, tmp_path / "evals" / "1", scenes, tiny(2), "--eval-only")
    assert main.main(words) == 0
    shutil.copytree(out / "trial_2", tmp_path / "evals" / "trial_2")
    capsys.readouterr()
    assert table_verb([str(tmp_path / "evals"), "--format", "md"]) == 0
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("| setsim")]
    assert len(rows) == 1 and "| imagenet100 | 200 | 2 |" in rows[0]  # one model, two trials
    assert "evaluated by --eval-only (seeds 5)" in shown
    with pytest.raises(InputError, match="seed 5 occurs twice.*evaluates a trained model again"):
        table_verb([str(tmp_path / "evals"), str(out)])


def test_a_model_that_no_trial_left_is_evaluated_too(finished, scenes, tmp_path):
    out, *_ = finished
    model = tmp_path / "model.pth"
    shutil.copy(out / "trial_1" / "model_final.pth", model)
    words = transfer(model, tmp_path / "again", scenes, tiny(2), "--eval-only", "--seed", "7")
    assert main.main(words) == 0
    record = results.load(tmp_path / "again")
    assert record.seed == 7 and record.weights == record.evaluated and record.pretrain == {}


def test_a_model_of_another_protocol_gets_no_record_of_this_one(finished, scenes, tmp_path):
    out, *_ = finished
    words = transfer(out / "trial_1", tmp_path / "again", scenes, tiny(2), "--eval-only")
    words[words.index("coco_mask_fpn_1x")] = "coco_mask_fpn_2x"  # of the same tensors
    with pytest.raises(InputError, match="--protocol was 'coco_mask_fpn_1x'"):
        main.main(words)
    assert not (tmp_path / "again" / "result.json").exists()


@pytest.mark.parametrize(
    "named, out, more, says",
    [
        ("trial_1", "new", ["--variant", "4conv1fc"], "not a model of this protocol"),
        ("trial_9", "new", [], "not a file; --eval-only takes the model_final.pth"),
        ("run.json", "new", [], "not the checkpoint of a trained model"),
        ("trial_1", ".", [], "holds trials"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(finished, scenes, tmp_path, named, out, more, says):
    folder, *_ = finished
    target = folder if out == "." else tmp_path / out
    words = transfer(folder / named, target, scenes, tiny(2), "--eval-only", *more)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    with pytest.raises(InputError, match=says):
        main.main(words)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    assert {k: v for k, v in after.items() if k.name != "log.txt"} == {
        k: v for k, v in before.items() if k.name != "log.txt"
    }


def broken(scenes, copy, split="val2017"):
    """The scenes with an image of COCO's cut in half, and what puts it right."""
    shutil.copytree(scenes, copy)
    image = min((copy / "coco" / split).iterdir())
    whole = image.read_bytes()
    image.unlink()  # it may be one file with another layout's
    image.write_bytes(whole[: len(whole) // 2])
    return lambda: image.write_bytes(whole)


@pytest.fixture
def no_training(monkeypatch):
    """A function from whose call on nothing may be trained."""
    from densessl.d2_transfer import trainer

    def trains(self):
        raise AssertionError("a trained model was trained on")

    return lambda: monkeypatch.setattr(trainer.Trainer, "run_step", trains)


def test_a_trial_whose_evaluation_failed_is_evaluated_and_not_trained_again(
    finished, tmp_path, scenes, weights, no_training
):
    whole, *_ = finished
    put_right = broken(scenes, tmp_path / "data")
    out = tmp_path / "out"
    flags = ("--trials", "2", "--seed", "5", "--trial", "1")
    words = transfer(weights, out, tmp_path / "data", tiny(2), *flags)
    with pytest.raises(InputError, match="cannot be read.*trial 1 is trained, and its model kept"):
        main.main(words)
    folder = out / "trial_1"
    assert not (folder / "result.json").exists()
    no_training()
    with pytest.raises(InputError, match="cannot be read"):
        main.main(words)  # nothing is lost by trying before it is put right
    put_right()
    assert main.main(words) == 0
    record, same = results.load(folder), results.load(whole / "trial_1")
    assert record.metrics == pytest.approx(same.metrics, nan_ok=True, rel=0, abs=0)
    assert (record.seed, record.method, record.evaluated) == (5, "setsim", {})
    assert record.weights == same.weights and record.config_sha256 == same.config_sha256
    kept = torch.load(folder / "model_final.pth", weights_only=True)
    assert list(kept) == ["model"]  # as after any finished trial
    assert sorted(path.name for path in folder.glob("model_*")) == TRAINED
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["bbox/AP"] == record.metrics["bbox/AP"] and last["iteration"] == 2
    assert json.loads((out / "summary.json").read_text())["seeds"] == [5]


def test_an_evaluation_that_fails_by_a_bug_loses_no_trial(
    tmp_path, scenes, monkeypatch, no_training, capsys
):
    from densessl.core.errors import DenseSSLError
    from densessl.d2_transfer.evaluation import coco

    def fails(self):
        raise TypeError("an evaluator of another version")

    words = transfer("random", tmp_path / "out", scenes, tiny(1), "--trials", "2")
    with monkeypatch.context() as patched:
        patched.setattr(coco.CocoEvaluator, "evaluate", fails)
        with pytest.raises(DenseSSLError, match="2 of 2 trials failed") as caught:
            main.main(words)
    assert "trial 1 is trained" in str(caught.value) and "trial 2 is trained" in str(caught.value)
    assert "another version" in str(caught.value) and caught.value.exit_code == 1
    no_training()
    assert main.main(words) == 0
    assert "mean of 2" in capsys.readouterr().out
    # without its record a trial is evaluated anew, and never trained on from its end
    (tmp_path / "out" / "trial_2" / "result.json").unlink()
    assert main.main(words) == 0
    model = tmp_path / "out" / "trial_2" / "model_final.pth"
    model.write_bytes(model.read_bytes()[:1000])
    (model.parent / "result.json").unlink()
    with pytest.raises(
        InputError, match="model_final.pth is damaged .*put a good copy back, or remove"
    ) as e:
        main.main(words)
    assert "kept" not in str(e.value)


def test_a_validation_file_put_right_is_what_the_kept_model_is_evaluated_on(
    tmp_path, scenes, monkeypatch, no_training
):
    from densessl.d2_transfer.evaluation import coco

    def fails(self):
        raise InputError("an annotation that makes no sense")

    named = {"train": tmp_path / "train.json", "val": tmp_path / "val.json"}
    flags = ["--mini", "--trials", "2", "--trial", "1", "-o", str(tmp_path / "out")]
    for split, file in named.items():
        shutil.copy(scenes / "coco" / "annotations" / f"instances_{split}2017.json", file)
        images = scenes / "coco" / f"{split}2017"
        flags += [f"--{split}-json", str(file), f"--{split}-images", str(images)]
    words = ["random", "--protocol", "custom_mask", *flags, *tiny(1)]
    with monkeypatch.context() as patched:
        patched.setattr(coco.CocoEvaluator, "evaluate", fails)
        with pytest.raises(InputError, match="trial 1 is trained, and its model kept"):
            main.main(words)
    content = json.loads(named["val"].read_text())
    content["annotations"].pop()
    named["val"].write_text(json.dumps(content))
    no_training()
    assert main.main(words) == 0
    record = results.load(tmp_path / "out" / "trial_1")
    assert files.sha256(named["val"]) in results.config_of(record)["DATASETS.CUSTOM"]
    content["annotations"].pop()
    named["val"].write_text(json.dumps(content))  # a number of the other file is there now
    with pytest.raises(InputError, match="holds another run .DATASETS.CUSTOM"):
        main.main(words)


def test_other_training_annotations_are_another_run(tmp_path):
    class Config(dict):
        def dump(self):
            return yaml.safe_dump(dict(self))

    def config(custom):
        return Config(DATASETS={"CUSTOM": custom})

    run = trials.Run(tmp_path, "custom_mask", "", True, start.Weights("", "random", "", "r"), None)
    trials.begin_folder(run, config("aa bb"))
    (tmp_path / "trial_1").mkdir()
    (tmp_path / "trial_1" / "last_checkpoint").touch()
    trials.check_folder(run, config("aa cc"))
    with pytest.raises(InputError, match="DATASETS.CUSTOM 'aa bb' there, 'dd bb' here"):
        trials.check_folder(run, config("dd bb"))


def test_an_evaluation_between_steps_that_fails_keeps_the_steps(tmp_path, scenes, monkeypatch):
    from densessl.d2_transfer.evaluation import coco

    def fails(self):
        raise InputError("not this time")

    overrides = tiny(3, **{"TEST.EVAL_PERIOD": 2})
    words = transfer("random", tmp_path / "out", scenes, overrides, "--trials", "1")
    with monkeypatch.context() as patched:
        patched.setattr(coco.CocoEvaluator, "evaluate", fails)
        with pytest.raises(InputError, match="not this time$"):
            main.main(words)
    note = (tmp_path / "out" / "trial_1" / "last_checkpoint").read_text()
    assert note == "model_0000001.pth"
    assert main.main(words) == 0


@pytest.mark.slow
def test_a_trial_that_is_killed_in_its_evaluation_is_not_trained_again(
    tmp_path, scenes, no_training
):
    words = transfer("random", tmp_path / "out", scenes, tiny(2), "--trials", "1")
    program = """
import os, sys
from densessl.d2_transfer import main
from densessl.d2_transfer.evaluation.coco import CocoEvaluator
def die(self, inputs, outputs):
    os.kill(os.getpid(), 9)
CocoEvaluator.process = die
main.main(sys.argv[1:])
"""
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    no_training()
    assert main.main(words) == 0
    assert results.load(tmp_path / "out" / "trial_1").seed == 1


def stopped_at_the_second_step(words, monkeypatch):
    """Run the verb until its second step, as Ctrl-C would end it."""
    from densessl.d2_transfer import hooks

    count = hooks.TrialBar.after_step

    def press_ctrl_c(self):
        count(self)
        if self.trainer.iter == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(hooks.TrialBar, "after_step", press_ctrl_c)
        with pytest.raises(StoppedEarly):
            main.main(words)


def test_a_begun_trial_keeps_its_seed_and_names_a_damaged_checkpoint(tmp_path, scenes, monkeypatch):
    words = transfer("random", tmp_path / "out", scenes, tiny(4), "--trials", "1")
    stopped_at_the_second_step(words, monkeypatch)
    folder = tmp_path / "out" / "trial_1"
    config = (folder / "config.yaml").read_bytes()
    with pytest.raises(InputError, match="holds another run.*seed 1 there, 5 here"):
        main.main([*words, "--seed", "5"])
    assert (folder / "config.yaml").read_bytes() == config
    checkpoint = folder / "model_0000001.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="every checkpoint .* is damaged .1 of 1.*or remove them"):
        main.main(words)
    checkpoint.unlink()  # as the message says: the trial begins anew
    assert main.main(words) == 0


def test_a_refused_command_leaves_the_weights_of_the_run(tmp_path, scenes, our_checkpoint):
    first, second = (our_checkpoint(tmp_path / f"{n}.pth", iteration=n) for n in (1, 2))
    out = tmp_path / "out"
    assert main.main(transfer(first, out, scenes, tiny(2), "--trials", "1")) == 0
    before = {path.name: path.read_bytes() for path in out.glob("weights_*.pkl")}
    with pytest.raises(InputError, match="holds another run"):
        main.main(transfer(second, out, scenes, tiny(2), "--trials", "1"))
    assert {name: (out / name).read_bytes() for name in before} == before and len(before) == 1


def test_a_folder_in_which_nothing_came_to_be_saved_is_taken_over(tmp_path, scenes):
    from densessl.core.errors import DenseSSLError

    words = transfer("random", tmp_path / "out", scenes, [], "--trials", "1")
    with pytest.raises(DenseSSLError, match="lower one may train"):
        main.main([*words, *tiny(4, **{"SOLVER.BASE_LR": 1e18, "SOLVER.WARMUP_ITERS": 0})])
    assert main.main([*words, *tiny(2)]) == 0


@pytest.mark.parametrize(
    "overrides, says",
    [
        (["SEED", "7"], "SEED cannot be set to '7' here: it is --seed"),
        (["OUTPUT_DIR", "x"], "it is -o"),
        (["MODEL.WEIGHTS", "x"], "it is WEIGHTS"),
        (["DATALOADER.NUM_WORKERS", "-1"], "NUM_WORKERS is -1; allowed: 0 or more"),
        (["TEST.PRECISE_BN.NUM_ITER", "0"], "NUM_ITER is 0; allowed: 1 or more"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["MODEL.RESNETS.NORM", "Foo"], "the config makes no model: KeyError"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], "5, but coco_2017_train has 80 classes"),
        (["DATASETS.TEST", "('voc_2007_test',)"], "80, but voc_2007_test has 20 classes"),
    ],
)
def test_what_would_fail_in_a_trial_is_refused_before(tmp_path, scenes, overrides, says):
    words = transfer("random", tmp_path / "out", scenes, [*tiny(2), *overrides], "--trials", "1")
    with pytest.raises(InputError) as caught:
        main.main(words)
    assert says in str(caught.value)
    assert not list((tmp_path / "out").glob("trial_*"))


def test_a_folder_that_cannot_be_made_is_said(tmp_path, scenes):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written to"):
        main.main(transfer("random", tmp_path / "file" / "out", scenes, tiny(2)))


@pytest.mark.slow
@pytest.mark.parametrize("workers, gpus", [("2", "1"), ("1", "2")])
def test_an_unreadable_image_is_named_and_nothing_hangs(tmp_path, scenes, workers, gpus):
    copy = tmp_path / "data"
    shutil.copytree(scenes, copy)
    for image in (copy / "coco" / "train2017").iterdir():
        content = image.read_bytes()
        image.unlink()  # it may be one file with another layout's
        image.write_bytes(content[: len(content) // 2])
    overrides = tiny(4, **{"DATALOADER.NUM_WORKERS": workers})
    words = transfer("random", tmp_path / "out", copy, overrides, "--trials", "1", "--gpus", gpus)
    done = run_command(words)
    assert done.returncode == 2, done.stderr
    assert "cannot be read: image file is truncated" in done.stderr
    assert "train2017/0000" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers, gpus", [("2", "1"), ("1", "2")])
def test_a_failure_with_loader_workers_ends_the_command(tmp_path, scenes, workers, gpus):
    bad = {"SOLVER.BASE_LR": 1e18, "SOLVER.WARMUP_ITERS": 0, "DATALOADER.NUM_WORKERS": workers}
    words = transfer("random", tmp_path / "out", scenes, tiny(6, **bad), "--trials", "1")
    done = run_command([*words, "--gpus", gpus])
    assert done.returncode == 1, done.stderr
    assert "lower one may train" in done.stderr


# Weights -----------------------------------------------------------------------------------------


def config(name="coco_mask_fpn_1x", overrides=()):
    return resolve(name, gpus=1, mini=True, cuda=False, overrides=overrides)


def test_a_checkpoint_is_converted_once_and_kept(tmp_path, weights):
    cfg = config(overrides=tiny(2))
    ours = start.prepare(str(weights), tmp_path, cfg)
    assert (
        Path(ours.file) == tmp_path / f"weights_{ours.sha256[:12]}.pkl"
        and "proof" in Path(ours.file).with_suffix(".txt").read_text()
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

    from densessl.d2_transfer.checkpoints import AtomicCheckpointer

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


def pyramid(width: int = 16) -> dict[str, torch.Tensor]:
    """What ReSim-FPN pretrains of an FPN on a ResNet-18: laterals of 3 to 5, outputs of 3 and 4."""
    generator = torch.Generator().manual_seed(5)
    made = {}
    for level, channels in ((3, 128), (4, 256), (5, 512)):
        made[f"fpn_lateral{level}.weight"] = torch.randn(width, channels, 1, 1, generator=generator)
        made[f"fpn_lateral{level}.bias"] = torch.randn(width, generator=generator)
    for level in (3, 4):
        shape = (width, width, 3, 3)
        made[f"fpn_output{level}.weight"] = torch.randn(shape, generator=generator)
        made[f"fpn_output{level}.bias"] = torch.randn(width, generator=generator)
    return made


@pytest.mark.parametrize("transferred", [False, True])
def test_a_pretrained_fpn_goes_into_the_detector_when_asked_for(
    tmp_path, our_checkpoint, transferred
):
    from detectron2.modeling import build_model

    from densessl.d2_transfer.checkpoints import AtomicCheckpointer

    fpn = pyramid()
    source = our_checkpoint(tmp_path / "resim.pth", depth=18, fpn=fpn)
    asked = {"MODEL.FPN.OUT_CHANNELS": 16, "MODEL.FPN.TRANSFER": transferred}
    cfg = config(overrides=tiny(2, **asked))
    file = start.prepare(str(source), tmp_path / "out", cfg).file
    model = build_model(cfg)
    AtomicCheckpointer(model, transfer_fpn=transferred).load(file)
    filled = start.check_loaded(model, file, transferred)
    state = model.state_dict()
    weights = [name for name in fpn if name.endswith("weight")]  # the norm has no place for biases
    same = [torch.equal(state[f"backbone.{name}"].cpu(), fpn[name]) for name in weights]
    assert same == [transferred] * 5
    plain = sum(1 for key in state if start.backbone_name(key))
    assert filled == plain + 5 * transferred


def test_an_fpn_that_is_not_there_cannot_be_transferred(tmp_path, weights):
    from detectron2.modeling import build_model

    from densessl.d2_transfer.checkpoints import AtomicCheckpointer

    cfg = config(overrides=tiny(2, **{"MODEL.FPN.TRANSFER": True}))
    with pytest.raises(InputError, match="random start has no FPN"):
        start.prepare("random", tmp_path, cfg)
    file = start.prepare(str(weights), tmp_path, cfg).file
    model = build_model(cfg)
    AtomicCheckpointer(model, transfer_fpn=True).load(file)
    with pytest.raises(InputError, match="holds no FPN that the detector has"):
        start.check_loaded(model, file, transfer_fpn=True)


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


# Folders and averages ----------------------------------------------------------------------------


def test_the_two_newest_checkpoints_are_kept_then_the_model_alone(tmp_path):
    from densessl.d2_transfer.checkpoints import AtomicCheckpointer
    from densessl.d2_transfer.saved import Saved

    def there():
        return sorted(path.name for path in tmp_path.glob("*.pth"))

    model, saved = torch.nn.Linear(2, 2), Saved(tmp_path)
    checkpointer = AtomicCheckpointer(model, str(tmp_path))
    for step in (4, 9, 14):
        checkpointer.save(f"model_{step:07d}", iteration=step)
    assert there() == ["model_0000009.pth", "model_0000014.pth"] and not saved.is_trained()
    newest = saved.whole()
    assert saved.number(newest) == 14
    resumes = AtomicCheckpointer(model, str(tmp_path), resumed=newest)
    assert resumes.resume_or_load("")["iteration"] == 14
    checkpointer.save("model_final", iteration=14)
    assert saved.trained() == tmp_path / "model_final.pth"
    saved.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", *TRAINED]


def test_what_a_killed_trial_logged_beyond_its_checkpoint_is_forgotten(tmp_path):
    lines = tmp_path / "metrics.jsonl"
    rows = [{"trial": t, "iteration": i} for t in (1, 2) for i in (20, 40)]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"trial": 2, "iter')
    trials.cut_back(Metrics(lines), trial=2, steps=20)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == rows[:3]


def test_one_trial_has_no_standard_deviation_and_three_have_the_samples():
    def record(value):
        return results.Record(
            *("random", {"path": "random", "sha256": ""}, {}, "voc_det_c4", "", 1),
            *({"bbox/AP": value, "bbox/APs": float("nan")}, "", {}, results.now(), results.now()),
        )

    one = summary({}, [record(3.0)])["metrics"]
    assert one == {"bbox/AP": {"mean": 3.0, "std": None, "n": 1, "values": [3.0]}}
    three = summary({}, [record(1.0), record(2.0), record(6.0)])["metrics"]["bbox/AP"]
    assert (three["mean"], three["n"]) == (3.0, 3)
    assert three["std"] == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert "3.00 ± 2.65" in table(["bbox/AP"], [record(1.0), record(2.0), record(6.0)])


# Whole trials ------------------------------------------------------------------------------------


def run_command(words: list[str], **options):
    return subprocess.run(
        [sys.executable, "-m", "densessl", "transfer", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_sigterm_ends_with_75_and_the_same_command_goes_on(tmp_path, scenes):
    words = transfer("random", tmp_path / "out", scenes, tiny(45), "--trials", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "densessl", "transfer", *words],
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
    assert "the same command resumes" in said
    done = run_command(words)
    assert done.returncode == 0, done.stderr
    first = json.loads(lines.read_text().splitlines()[0])
    assert first["iteration"] == 20
    assert results.load(tmp_path / "out" / "trial_1").seed == 1


@pytest.mark.slow
def test_a_resnet_50_from_our_checkpoint_goes_through(tmp_path, scenes, our_checkpoint):
    protocol = "coco_mask_fpn_1x"  # that of a C4 detector is in test_learn_detection.py
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
