"""The jobs of a pretraining, a conversion, the trials and the table, and what they cost."""

import sys
from pathlib import Path

import pytest
import yaml

from densessl import configs
from densessl.core.errors import InputError
from densessl.d2_transfer import main as transfer_verb
from densessl.d2_transfer import results
from densessl.slurm import cost, jobs

CONFIG = "setsim_r50_in100_200ep"  # its cost: 8 V100 for 12 h


def pretraining(folder, *overrides, config=CONFIG, **options):
    words = ["DATA.PATH", str(folder / "images"), *overrides]
    return jobs.pretrain_job(str(config), words, folder / "run", **options)


def trials(folder, protocol="voc_det_c4", variant=None, count=2, weights="random", **options):
    return jobs.transfer_jobs(weights, protocol, variant, count, folder, **options)


def test_a_pretraining_is_its_verb_with_one_process_a_gpu(tmp_path):
    job = pretraining(tmp_path, "SEED", "3", name="pretrain-setsim", needs=("scenes",))
    out = str(tmp_path / "run")
    expected = ("pretrain", "--config", CONFIG, "DATA.PATH", str(tmp_path / "images"))
    assert job.argv == (*expected, "SEED", "3", "OUTPUT_DIR", out)
    assert job.command[:3] == [sys.executable, "-m", "densessl"]
    assert job.outputs == (tmp_path / "run" / "backbone_final.pth",)
    assert job.needs == ("scenes",)
    assert (job.resources.per, job.resources.processes) == ("gpu", 8)


def test_its_hours_are_its_cost_over_the_gpus_while_no_option_changes_the_run(tmp_path):
    assert pretraining(tmp_path).resources.hours == 12
    assert pretraining(tmp_path, nodes=2, gpus=8).resources.hours == 6
    assert pretraining(tmp_path, "DATA.WORKERS", "9").resources.hours == 12
    assert pretraining(tmp_path, "SOLVER.EPOCHS", "100").resources.hours is None
    assert pretraining(tmp_path, config=f"{CONFIG}_scenes").resources.hours is None
    assert pretraining(tmp_path, gpus=0).resources.hours is None


def test_here_several_gpus_are_several_processes_of_the_job_itself(tmp_path):
    here = pretraining(tmp_path, local=True, gpus=2)
    assert "torch.distributed.run" in here.command and "2" in here.command
    assert here.content == pretraining(tmp_path, gpus=2).content
    assert pretraining(tmp_path, local=True, gpus=1).command[:3] == [
        *(sys.executable, "-m", "densessl")
    ]


def test_its_content_is_what_changes_the_weights(tmp_path):
    own = tmp_path / "own.yaml"
    base = configs.FOLDER / "pretrain" / f"{CONFIG}.yaml"
    own.write_text(f"# mine\n_BASE_: {base}\nSOLVER:\n  EPOCHS: 100\n")
    content = pretraining(tmp_path, config=own).content
    same = [("DATA.WORKERS", "9"), ("LOG.PERIOD", "7"), ("CHECKPOINT.KEEP", "3"), ("DEVICE", "cpu")]
    for words in same:
        assert pretraining(tmp_path, *words, config=own).content == content
    place = f"/elsewhere/{tmp_path.name}/images"  # pretrain itself compares the images
    assert jobs.pretrain_job(str(own), ["DATA.PATH", place], tmp_path / "other").content == content
    other = ["DATA.CLASSES", "", "DATA.PATH", str(tmp_path / "others")]
    for words in (("SEED", "1"), ("SOLVER.BASE_LR", "0.1"), other[:2], other[2:]):
        assert pretraining(tmp_path, *words, config=own).content != content
    own.write_text(f"# another head\n_BASE_: {base}\nSOLVER:\n  EPOCHS: 100  # as above\n")
    assert pretraining(tmp_path, config=own).content == content
    own.write_text(f"_BASE_: {base}\nSOLVER:\n  EPOCHS: 101\n")
    assert pretraining(tmp_path, config=own).content != content


def test_the_sum_of_what_a_run_wrote_is_that_of_its_job(tmp_path):
    from densessl.pretrain import config as pretraining_config

    job = pretraining(tmp_path, "SEED", "3")
    words = ["SEED", "3", "DATA.PATH", str(tmp_path / "images"), "OUTPUT_DIR", str(tmp_path)]
    cfg = pretraining_config.load(CONFIG, words)
    saved = yaml.safe_load(cfg.dump())
    assert jobs.pretraining_hash(saved) == job.content[-1]
    del saved["SETSIM"]["STRATEGY"]  # a run from before there was such an option
    assert jobs.pretraining_hash(saved) == job.content[-1]


def test_weights_to_start_from_count_by_content_unless_a_job_makes_them(tmp_path):
    file = tmp_path / "moco.pth"
    contents = []
    for text in ("one", "two", "one"):
        file.write_text(text)
        job = pretraining(tmp_path, "BACKBONE.WEIGHTS", str(file), config="vader")
        contents.append(job.content)
    assert contents[0] == contents[2] != contents[1]
    made = [pretraining(tmp_path, start=tmp_path / name, config="vader") for name in ("a", "b")]
    assert made[0].content == made[1].content not in contents
    assert made[0].argv[-4:-2] == ("BACKBONE.WEIGHTS", str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["SOLVER.EPOCH", "3"], {}, "SOLVER.EPOCHS"),
        (["OUTPUT_DIR", "x"], {}, "OUTPUT_DIR is given twice"),
        (["SOLVER.BATCH_SIZE", "100"], {}, "8 processes cannot share"),
        (["SEED"], {}, "KEY VALUE"),
        ([], {"config": "setsim_r50"}, "Did you mean"),
    ],
)
def test_what_pretrain_would_refuse_is_refused_now(tmp_path, overrides, options, message):
    with pytest.raises(InputError, match=message):
        pretraining(tmp_path, *overrides, **options)


def test_a_conversion_reads_a_file_or_what_a_job_makes(tmp_path):
    file, out = tmp_path / "infomin.pth", tmp_path / "infomin.pkl"
    with pytest.raises(InputError, match="not a file"):
        jobs.convert_job(file, out)
    made = jobs.convert_job(file, out, needs=("pretrain",))
    assert made.argv == ("convert", str(file), "-o", str(out), "--force")
    contents = set()
    for text in ("one", "two"):
        file.write_text(text)
        contents.add(jobs.convert_job(file, out).content)
    assert len(contents | {made.content}) == 3
    assert jobs.convert_job(file, out, method="infomin").content not in contents


def test_trials_are_alike_jobs_of_one_array(tmp_path):
    first, second = trials(tmp_path, name="transfer-random", needs=("scenes",), data="D")
    words = ("--protocol", "voc_det_c4", "--gpus", "8", "--data", "D", "-o", str(tmp_path))
    assert first.argv == ("transfer", "random", "--trials", "2", "--trial", "1", *words)
    assert second.argv == ("transfer", "random", "--trials", "2", "--trial", "2", *words)
    assert [first.name, second.name] == ["transfer-random-1", "transfer-random-2"]
    assert first.array == second.array == "transfer-random"
    assert second.outputs == (tmp_path / "trial_2" / "result.json",)
    assert first.content != second.content
    assert (first.resources.per, first.resources.gpus, first.resources.hours) == ("node", 8, 3.6)


def test_all_trials_in_one_job(tmp_path):
    (job,) = trials(tmp_path, together=True, name="transfer-random")
    assert "--trial" not in job.argv and job.outputs == (tmp_path / "summary.json",)
    assert job.resources.hours == pytest.approx(7.2)
    assert job.name == "transfer-random" and job.array == ""


def test_their_content_is_what_changes_the_numbers(tmp_path):
    content = trials(tmp_path)[0].content
    same = [{"count": 5}, {"data": "elsewhere"}, {"options": ("DATALOADER.NUM_WORKERS", "7")}]
    for changed in same:
        assert trials(tmp_path, **changed)[0].content == content
    other = [
        {"seed": 2},
        {"gpus": 4},  # the linear rule
        {"gpus": 4, "keep_batch": True},
        {"gpus": 0},  # no SyncBN on the CPU
        {"mini": True, "gpus": 1},
        {"options": ("SOLVER.BASE_LR", "0.01")},
        {"protocol": "coco_mask_c4_1x"},
    ]
    contents = [trials(tmp_path, **changed)[0].content for changed in other]
    assert len({content, *contents}) == len(other) + 1
    assert trials(tmp_path, gpus=8, keep_batch=True)[0].content == content  # nothing to scale
    assert trials(tmp_path, seed=2)[0].content == trials(tmp_path)[1].content


def test_the_weights_of_trials_count_by_content_unless_a_job_makes_them(tmp_path):
    file = tmp_path / "weights.pkl"
    with pytest.raises(InputError, match="not a file"):
        trials(tmp_path, weights=str(file))
    contents = set()
    for text in ("one", "two"):
        file.write_text(text)
        contents.add(trials(tmp_path, weights=str(file))[0].content)
        assert trials(tmp_path, weights=f"supervised:{file}")[0].content in contents
    made = trials(tmp_path, weights=str(file), needs=("convert",))[0]
    assert len(contents) == 2 and made.content not in contents


def test_the_sum_is_that_of_the_records(tmp_path, capsys):
    for protocol, words in (("coco_mask_fpn_1x", ["--variant", "4conv1fc"]), ("linear", [])):
        command = ["--protocol", protocol, *words, "--gpus", "4", "--print-config"]
        assert transfer_verb.main(command) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        variant = words[1] if words else None
        job = trials(tmp_path, protocol, variant, gpus=4)[0]
        assert results.config_fingerprint(printed) in job.content


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol": "voc_det_c5"}, "Did you mean 'voc_det_c4'"),
        ({"protocol": "coco_mask_fpn_1x", "variant": "moco3fc"}, "moco2fc"),
        ({"options": ("SOLVER.BASE_LRR", "1")}, "SOLVER.BASE_LR"),
        ({"count": 0}, "1 or more"),
        ({"protocol": "knn", "keep_batch": True}, "keep-batch"),
        ({"gpus": 3}, "cannot share"),
    ],
)
def test_what_transfer_would_refuse_is_refused_now(tmp_path, changed, message):
    options = {"gpus": 3, "keep_batch": True} if "gpus" in changed else changed
    with pytest.raises(InputError, match=message):
        trials(tmp_path, **options)


def test_a_table_comes_after_its_trials_also_failed_ones(tmp_path):
    job = jobs.table_job(["a", "b"], tmp_path / "t.md", paper="setsim/table4", after=("x", "y"))
    out = str(tmp_path / "t.md")
    assert job.argv == ("table", "a", "b", "--paper", "setsim/table4", "-o", out)
    assert (job.needs, job.after, job.outputs) == ((), ("x", "y"), (Path(out),))


@pytest.mark.parametrize(
    ("config", "hours"),
    [
        ("pretrain/setsim_r50_in100_200ep", 8 * 12),
        ("pretrain/simclr_r50_in1k_200ep", 8 * 3.3 * 24),
        ("pretrain/moco_v2_r50_in1k_200ep", 8 * 53),
        ("pretrain/densecl_r50_coco_800ep", 8 * 24),
        ("pretrain/moco_v2", None),
        ("transfer/voc_det_c4", 8 * 3.6),
        ("transfer/coco_mask_fpn_1x_4conv1fc", 8 * 8.6),
        ("transfer/voc_semseg_fcn_d8", None),
        ("transfer/voc_det_c4_frozen_res5_trainable", None),  # 'below' a figure is none
    ],
)
def test_gpu_hours_are_those_that_are_said_of_a_config(config, hours):
    verb, name = config.split("/")
    if verb == "pretrain":
        told = cost.of_pretraining(name, [], gpus=2)
    else:
        told = cost.of_fine_tuning(configs.FOLDER / f"{config}.yaml", [], gpus=2)
    assert told == (None if hours is None else pytest.approx(hours / 2))


def test_every_fine_tuning_with_a_cost_is_there():
    there = {file.stem for file in (configs.FOLDER / "transfer").glob("*.yaml")}
    costs = yaml.safe_load((configs.FOLDER / "costs.yaml").read_text())
    assert set(costs) <= there and all(each["source"] for each in costs.values())


def test_a_config_of_ones_own_says_its_cost_in_any_form_of_unicode(tmp_path):
    own = tmp_path / "é.yaml"
    base = configs.FOLDER / "pretrain" / f"{CONFIG}.yaml"
    text = f"ABOUT:\n  cost: {{v100: 4, hours: 2.5}}  # é\n_BASE_: {base}\nSEED: 3\n"
    own.write_text(text, encoding="utf-16")
    assert pretraining(tmp_path, config=own, gpus=2).resources.hours == 5
    own.write_text(f"_BASE_: {base}\nSEED: 3\n")
    assert pretraining(tmp_path, config=own).resources.hours is None  # it is not inherited
    own.write_text(text.replace("hours", "hour"))
    with pytest.raises(InputError, match="(?s)'hour'.*cost.*'hours'"):
        pretraining(tmp_path, config=own)


def test_the_cost_is_of_what_is_left_and_says_what_has_no_figure(tmp_path):
    work = [
        pretraining(tmp_path, name="one"),
        pretraining(tmp_path, "SOLVER.EPOCHS", "100", name="other"),
        jobs.convert_job(tmp_path / "w.pth", tmp_path / "w.pkl", needs=("one",)),
        *trials(tmp_path, count=3),
    ]
    assert [cost.gpu_hours(job) for job in work[:3]] == [96, None, 0]
    assert cost.summary(work, lambda name: name == "transfer-1").splitlines() == [
        "                jobs  done  V100-hours left",
        "pretrain           2     0  at least 96 (no figure for 1 job)",
        "convert            1     0  0",
        "transfer           3     1  58",
        "sum                6     1  at least 154 (no figure for 1 job)",
        "(published or estimated for 8 V100)",
    ]
