"""``densessl study``: its plan, its draws of labels, its jobs, and the whole way on scenes."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import densessl
from densessl.core.errors import InputError
from densessl.slurm import flags
from densessl.slurm.settings import Cluster
from densessl.slurm.study import budget, draws, main, model, planning, recipe, watch
from densessl.slurm.study.budget import Costs, Fitting, Offer
from densessl.slurm.study.draws import Share
from densessl.slurm.study.model import Arm, Plan, parse_duration

# The draws ---------------------------------------------------------------------------------------

CLASSES = [(0, 1) if n % 10 else (0, 2) for n in range(100)] + [(3,), ()]


def test_of_one_draw_the_smaller_share_is_part_of_the_larger():
    small, large = (draws.draw(CLASSES, count, seed=1) for count in (8, 40))
    assert large[:8] == small and len(set(large)) == 40
    assert draws.draw(CLASSES, 8, seed=2) != small
    assert sorted(draws.draw(CLASSES, 1000, seed=1)) == list(range(len(CLASSES)))


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_there_at_once_and_then_in_its_proportion(seed):
    needed = draws.least(CLASSES, [seed])
    first = draws.draw(CLASSES, needed, seed)
    assert {label for number in first for label in CLASSES[number]} == {0, 1, 2, 3}
    half = [label for number in draws.draw(CLASSES, 51, seed) for label in CLASSES[number]]
    assert abs(half.count(1) - 45) <= 2 and abs(half.count(2) - 5) <= 1


def test_shares_of_too_few_images_are_raised_or_left_out_and_said():
    found, said = draws.shares(400, [1, 10, 100], needed=4)
    assert [(share.percent, share.images) for share in found] == [(1, 4), (10, 40), (100, 400)]
    assert said == []
    found, said = draws.shares(20, [1, 10, 100], needed=4)
    assert [(share.percent, share.images) for share in found] == [(20, 4), (100, 20)]
    assert len(said) == 2
    found, said = draws.shares(3, [1, 100], needed=4)
    assert [(share.percent, share.images) for share in found] == [(100, 3)]


# The budget --------------------------------------------------------------------------------------


def test_durations_are_read_as_people_write_them():
    read = [parse_duration(word, "--budget") for word in ("2h", "90min", "1h30m", "45 s", "1.5h")]
    assert read == [7200, 5400, 5400, 45, 5400]
    for word in ("", "2", "soon", "-1h", "0s", "1h-2m", "1..5h"):
        with pytest.raises(InputError, match="--budget"):
            parse_duration(word, "--budget")


@pytest.fixture
def offer():
    images, machine = recipe.ImageStats(400, 96.0), recipe.Machine(0, cores=2)
    methods = ("simclr", "densecl")
    recipes = tuple(recipe.first(name, "resnet18", images, machine) for name in methods)
    shares = (Share(1, 4), Share(10, 40), Share(100, 400))
    return Offer(recipes, shares, seeds=3, others=2, asked=False, efforts=3)


def fitted(offer, seconds, step=1.0, trial=1.0):
    costs = Costs(start=5.0, trial=lambda effort, images: trial, step=lambda recipe: step)
    return Fitting(costs, seconds).fit(offer), Fitting(costs, seconds)


def test_what_the_budget_does_not_hold_is_cut_one_thing_after_the_other(offer):
    found, fitting = fitted(offer, 1e6)
    assert len(found.recipes) == 2 and found.seeds == 3 and len(found.shares) == 3
    found, fitting = fitted(offer, 1500)
    assert [each.method for each in found.recipes] == ["simclr"] and len(found.notes) >= 2
    assert found.seeds == 3 and found.steps[0] >= budget.LEAST_STEPS
    found, fitting = fitted(offer, 600)
    assert found.seeds == 3 and len(found.shares) == 2 and 1 <= found.steps[0] < 300
    used = fitting.measuring(found) + 4 * 5 + 3 * found.steps[0]
    assert used <= budget.ROOM * 600


def test_a_budget_that_holds_no_trial_is_refused_with_what_would_do(offer):
    with pytest.raises(InputError, match="--budget 30 s"):
        fitted(offer, 30)


def test_methods_that_were_asked_for_stay_as_long_as_they_have_some_steps(offer):
    asked = Offer(**{**offer.__dict__, "asked": True})
    found, _ = fitted(asked, 2000)
    assert len(found.recipes) == 2


def test_protocols_measure_less_thoroughly_before_anything_is_cut(offer):
    costs = Costs(5.0, trial=lambda effort, images: 10.0 / (1 + effort), step=lambda recipe: 0.1)
    assert Fitting(costs, 1e5).fit(offer).effort == 0
    assert Fitting(costs, 900).fit(offer).effort > 0


def plan_of(folder, seconds, **expected) -> Plan:
    arms = (
        Arm("random", "random"),
        Arm("simclr", "pretrained", pretrainings=3),
        Arm("densecl", "pretrained", pretrainings=1),
    )
    shares = (Share(100, 20),)
    plan = Plan(
        *("semseg", "images", 20, "train", "val", "resnet18", (), arms, shares, 3, False, seconds),
        *((), "densessl study", {}, expected),
    )
    plan.write(folder)
    return plan


def test_jobs_that_take_longer_than_measured_leave_the_third_pretraining_out(tmp_path):
    from densessl.slurm.graph import Finished, Job

    names = [f"pretrain-simclr-{seed}" for seed in range(3)]
    jobs = [Job(name, (name,)) for name in names]
    plan_of(tmp_path, 100, **dict.fromkeys(names, 30.0))
    Finished(jobs, tmp_path).mark(names[0], 60.0)
    look = watch.BudgetWatch(jobs, tmp_path)
    assert not look.leaves_out(jobs[1])  # one of two
    assert look.leaves_out(jobs[2])
    held = model.read(tmp_path)
    assert "3 of 3 of simclr" in held.left_out[0] and len(held.left_out) == 1
    assert [arm.pretrainings for arm in held.arms] == [0, 2, 1]
    assert look.leaves_out(jobs[2]) and model.read(tmp_path) == held
    plan_of(tmp_path, 1000, **dict.fromkeys(names, 30.0))
    assert not watch.BudgetWatch(jobs, tmp_path).leaves_out(jobs[2])


def test_of_a_method_without_any_pretraining_nothing_is_measured(tmp_path):
    from densessl.slurm.graph import Finished, Job

    first, other = Job("pretrain-simclr-0", ("a",)), Job("pretrain-densecl-0", ("b",))
    last = Job("measure-densecl", ("c",), after=(other.name,))
    plan_of(tmp_path, 10, **{"pretrain-simclr-0": 5.0, "pretrain-densecl-0": 5.0})
    Finished([first], tmp_path).mark(first.name, 10.0)
    look = watch.BudgetWatch([first, other, last], tmp_path)
    assert look.leaves_out(other) and look.leaves_out(last)
    assert [arm.name for arm in model.read(tmp_path).arms] == ["random", "simclr"]


# Bad input ---------------------------------------------------------------------------------------


def write_semseg(folder: Path, images: int = 12, seed: int = 0, kind: str = "masks") -> None:
    """Pictures whose lower half is of one class, with a square of another on some."""
    rng = np.random.default_rng(seed)
    for place in ("images", kind):
        (folder / place).mkdir(parents=True)
    for number in range(images):
        pixels = rng.integers(0, 80, (64, 64, 3))
        mask = np.zeros((64, 64), np.uint8)
        mask[32:] = 1
        if number % 3 == 0:
            mask[8:24, 8:24] = 2
        pixels[mask == 1] += 100
        pixels[mask == 2, 0] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / kind / f"{number}.png")


@pytest.fixture
def labelled(tmp_path):
    write_semseg(tmp_path / "train")
    write_semseg(tmp_path / "val", 6, seed=1, kind="labels")
    return tmp_path


def words(folder, *more, **changes):
    told = {"images": "train/images", "train": "train", "val": "val", "task": "semseg"} | changes
    told = {key: str(folder / value) if key != "task" else value for key, value in told.items()}
    flags = [word for key, value in told.items() for word in (f"--{key}", value)]
    return ["study", *flags, "-o", str(folder / "out"), "--local", "--gpus", "0", *map(str, more)]


@pytest.mark.parametrize(
    "changes, more, names",
    [
        ({"images": "nowhere"}, (), "nowhere"),
        ({"train": "nowhere"}, (), "nowhere"),
        ({"train": "train/images"}, (), "train/images"),
        ({"task": "segmentation"}, (), "semseg"),
        ({}, ("--budget", "2 weeks"), "2 weeks"),
        ({}, ("--budget", "2"), "--budget"),
        ({}, ("--budget", "2h", "--steps", "3"), "--steps"),
        ({}, ("--weights", "imagenet=nowhere.pth"), "nowhere.pth"),
        ({}, ("--weights", "nowhere.pth"), "NAME=FILE"),
        ({}, ("--methods", "simclrr"), "simclr"),
        ({}, ("--methods", "simclr,simclr"), "simclr"),
        ({}, ("--labels", "0,10"), "--labels"),
        ({}, ("--network", "resnet51"), "resnet50"),
        ({}, ("--network", "vit_tiny", "--methods", "vader"), "vit_tiny"),
        ({}, ("--seeds", "0"), "--seeds"),
        ({}, ("--seeds", "2", "--stepps", "2"), "--steps"),
    ],
)
def test_bad_input_ends_with_2_before_any_work(labelled, changes, more, names, capfd):
    assert densessl.main(words(labelled, *more, "--no-trial", **changes)) == 2
    assert names in capfd.readouterr().err
    assert not (labelled / "out").exists()


def test_an_image_without_a_mask_is_named(labelled, capfd):
    (labelled / "train" / "masks" / "3.png").unlink()
    assert densessl.main(words(labelled, "--no-trial")) == 2
    assert "3.png" in capfd.readouterr().err


def test_segnets_layout_and_two_folders_are_taken(labelled):
    (labelled / "CamVid").mkdir()
    for name, place in (("train", "images"), ("trainannot", "masks")):
        os.symlink(labelled / "train" / place, labelled / "CamVid" / name)
    from densessl.slurm.study import segmentation

    args = Namespace(classes=None, ignore=None, image_suffix=None, mask_suffix=None)
    args.train = str(labelled / "CamVid" / "train")
    args.val = f"{labelled / 'val' / 'images'}{os.pathsep}{labelled / 'val' / 'labels'}"
    found = segmentation.read(args, labelled / "out")
    assert (found.images, found.validation) == (12, 6)
    assert found.classes_of[0] == (0, 1, 2) and found.classes_of[1] == (0, 1)


# The whole way -----------------------------------------------------------------------------------

SMALL = ("--steps", 2, "--no-trial", "--seeds", 2, "--labels", "50,100", "--methods", "simclr")


def test_a_dry_run_says_the_plan_and_writes_nothing(labelled, capsys):
    assert densessl.main(words(labelled, *SMALL, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "random_bn" in said and "simclr" in said and "50 % (6 images)" in said
    assert not (labelled / "out").exists()


@pytest.fixture
def planned(labelled):
    """The plan of a small study and its graph; nothing has run."""
    from densessl.slurm.study import running

    args = main.parser().parse_args(words(labelled, *SMALL)[1:])
    return running.planned(args, labelled / "out", "densessl study")


def test_the_plan_lies_in_the_folder_before_the_first_job(planned, labelled):
    plan, graph = planned
    held = json.loads((labelled / "out" / "study.json").read_text())
    assert [(arm["name"], arm["kind"]) for arm in held["arms"]] == [
        *(("random", "random"), ("random_bn", "random"), ("simclr", "pretrained"))
    ]
    assert held["labels"] == [{"percent": 50, "images": 6}, {"percent": 100, "images": 12}]
    assert held["arms"][2]["steps"] == 2 and held["arms"][2]["pretrainings"] == 2
    assert model.read(labelled / "out") == plan


def test_all_arms_see_the_same_draw_and_each_seed_another(planned, labelled):
    _, graph = planned
    names = [job.name for job in graph.jobs()]
    assert names[-1] == "page" and len(names) == 6
    place = labelled / "out" / "labels" / "50"
    drawn = [sorted(file.name for file in (place / seed / "images").iterdir()) for seed in "01"]
    assert drawn[0] != drawn[1] and all(len(each) == 6 for each in drawn)
    for arm in graph.plan.arms:
        for seed in (0, 1):
            half, everything = graph.trials(arm, seed)
            at = half.argv.index("--train-images") + 1
            assert half.argv[at] == str(place / str(seed) / "images")
            assert everything.argv[at] == str(labelled / "train" / "images")


def test_on_a_cluster_every_trial_is_a_job_that_waits_for_its_own_pretraining(planned):
    from densessl.slurm.study.graph import Graph, StudyMachines

    plan, graph = planned
    jobs = Graph(plan, graph.data, graph.folder, StudyMachines(1, 0, local=False)).jobs()
    by_name = {job.name: job for job in jobs}
    assert len(jobs) == 2 + 3 * 2 * 2 + 1
    assert by_name["custom_semseg-linear-50-simclr-1"].needs == ("pretrain-simclr-1",)
    assert set(by_name["page"].after) == set(by_name) - {"page"}
    text = flags.preview(jobs, graph.folder, Cluster({}, chdir=str(graph.folder)))
    assert "custom_semseg-linear-50-simclr-1" in text


def test_another_command_in_the_same_folder_is_refused(planned, labelled, capfd):
    assert densessl.main(words(labelled, *SMALL[:-2], "--methods", "moco_v2")) == 2
    assert "methods" in capfd.readouterr().err


def test_a_small_study_leaves_a_record_of_every_arm_share_and_seed(planned, labelled):
    plan, graph = planned
    for job in graph.jobs()[:-1]:
        assert densessl.main(list(map(str, job.argv))) == 0, job.name
    results = labelled / "out" / "results" / "custom_semseg-linear"
    found = {}
    for file in results.glob("*/*/*/trial_1/result.json"):
        record = json.loads(file.read_text())
        percent, arm, seed = file.relative_to(results).parts[:3]
        found[percent, arm, seed] = record["metrics"]["sem_seg/mIoU"]
        assert record["seed"] == int(seed) + 1
        assert record["method"] == arm
    arms = ("random", "random_bn", "simclr")
    assert set(found) == {(p, a, s) for p in ("50", "100") for a in arms for s in ("0", "1")}
    assert all(0 < value <= 100 for value in found.values())
    assert not (labelled / "out" / "features").exists() or not list(
        (labelled / "out" / "features").iterdir()
    )
    assert planning.percents("1,10%,100") == [1, 10, 100]


# The other tasks ---------------------------------------------------------------------------------


def write_classes(folder: Path, images: int, seed: int) -> None:
    """Two class folders, of red and of blue pictures; one's name and files hold spaces."""
    rng = np.random.default_rng(seed)
    for channel, name in ((0, "red ones"), (2, "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 120, (40, 40, 3))
            pixels[:, :, channel] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"no {number}.png")


def test_class_folders_are_learnt_from_by_draws_of_links(tmp_path):
    write_classes(tmp_path / "train", 6, seed=0)
    write_classes(tmp_path / "val", 4, seed=1)
    from densessl.slurm.study import running

    told = words(tmp_path, *SMALL, images="train", task="cls")
    args = main.parser().parse_args(told[1:])
    plan, graph = running.planned(args, tmp_path / "out", "densessl study")
    random = plan.arms[0]
    small = {"SOLVER.MAX_ITER": "2", "SOLVER.SWEEP": "()", "INPUT.SIZE": "32"}
    protocol = plan.protocols[0]
    protocol.options.update(small)
    half, everything = graph.trials(random, 0)
    assert densessl.main(list(half.argv)) == 0
    drawn = [*(tmp_path / "out" / "labels" / "50" / "0").rglob("*.png")]
    assert sorted(file.parent.name for file in drawn) == ["blue"] * 3 + ["red ones"] * 3
    (record,) = (tmp_path / "out" / "results" / "linear-dino" / "50").rglob("result.json")
    assert json.loads(record.read_text())["metrics"]["linear/top1"] >= 0


@pytest.fixture
def coco(tmp_path):
    """Eight pictures with a box each, of two categories with ids of one's own."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        folder = tmp_path / split
        folder.mkdir()
        for number in range(count):
            pixels = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        sizes = {"width": 64, "height": 48}
        content = {
            "images": [{"id": f"i{n}", "file_name": f"{n}.png", **sizes} for n in range(count)],
            "annotations": [
                {
                    **{"id": n, "image_id": f"i{n}", "category_id": 7 + n % 2, "iscrowd": 0},
                    **{"bbox": [8, 8, 20, 20], "area": 400},
                    "segmentation": [[8, 8, 28, 8, 28, 28, 8, 28]],
                }
                for n in range(count)
            ],
            "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    return tmp_path


def coco_words(folder, *more, task="det"):
    pairs = {split: f"{folder / split}.json:{folder / split}" for split in ("train", "val")}
    start = ["study", "--images", f"{folder / 'train'}", "--task", task, "--local", "--gpus", "0"]
    told = [*start, "-o", f"{folder / 'out'}", "--train", pairs["train"], "--val", pairs["val"]]
    return [*told, *map(str, more)]


@pytest.mark.parametrize("task, protocol", [("det", "custom_det"), ("mask", "custom_mask")])
def test_coco_files_are_learnt_from_by_draws_in_files_of_their_own(coco, task, protocol):
    from densessl.slurm.study import running

    args = main.parser().parse_args(coco_words(coco, *SMALL, task=task)[1:])
    plan, graph = running.planned(args, coco / "out", "densessl study")
    assert [arm.name for arm in plan.arms] == ["random", "simclr"]  # it settles batch norm itself
    half, everything = graph.trials(plan.arms[0], 1)
    file = Path(half.argv[half.argv.index("--train-json") + 1])
    held = json.loads(file.read_text())
    assert {each["category_id"] for each in held["annotations"]} == {7, 8}
    assert len(held["images"]) == 4 == len(held["annotations"])
    assert half.argv[half.argv.index("--protocol") + 1] == protocol
    assert everything.argv[everything.argv.index("--train-json") + 1] == str(coco / "train.json")
    assert half.content != everything.content


def test_coco_words_that_name_no_file_are_refused(coco, capfd):
    wrong = coco_words(coco, "--no-trial")
    wrong[wrong.index("--val") + 1] = str(coco / "val.json")
    assert densessl.main(wrong) == 2
    assert "--val" in capfd.readouterr().err


def test_a_trial_of_a_detector_says_how_long_it_takes_by_effort(coco):
    from densessl.slurm.study import coco as task

    args = Namespace(task="det", mini=False)
    for split in ("train", "val"):
        setattr(args, split, f"{coco / split}.json:{coco / split}")
    seconds, _ = task.read(args, coco / "out").trial_seconds("resnet18", cuda=False)
    times = [seconds(effort, 8) for effort in range(len(task.STRIDES))]
    assert times == sorted(times, reverse=True) and times[-1] > 0


@pytest.mark.slow
def test_a_stopped_study_resumes_where_it_was(labelled):
    """Ctrl-C while a job runs ends with 75; the same command leaves what a whole run leaves."""
    command = [sys.executable, "-m", "densessl", *words(labelled, *SMALL)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = labelled / "out"
    running = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    while not list((out / "jobs").glob("measure-random.json")):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode == 75
    before = (out / "study.json").read_bytes()
    record = next((out / "results").rglob("random/0/trial_1/result.json"))
    modified = record.stat().st_mtime_ns
    assert subprocess.run(command, env=env).returncode == 0
    assert record.stat().st_mtime_ns == modified
    assert len(list((out / "results").rglob("result.json"))) == 12
    assert (out / "report.html").is_file()
    changed = json.loads((out / "study.json").read_text())
    assert changed["arms"][2].pop("seconds") > 0
    held = json.loads(before)
    assert held["arms"][2].pop("seconds") is None
    assert changed == held


def test_given_weights_are_an_arm_whose_network_all_have(labelled, capfd):
    import torch
    import torchvision

    from densessl.slurm.study import running

    file = labelled / "imagenet.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    told = words(labelled, *SMALL, "--weights", f"imagenet={file}")
    args = main.parser().parse_args(told[1:])
    plan, graph = running.planned(args, labelled / "out", "densessl study")
    given = next(arm for arm in plan.arms if arm.kind == "given")
    assert (given.name, given.weights, plan.network) == ("imagenet", str(file), "resnet18")
    trials = [job for seed in (0, 1) for job in graph.trials(given, seed)]
    assert len(trials) == 3  # all labels once: nothing in that is random
    assert densessl.main(list(trials[0].argv)) == 0
    assert densessl.main(words(labelled, *SMALL, "-w", f"b={file}", "--network", "resnet50")) == 2
    assert "resnet50" in capfd.readouterr().err


@pytest.mark.slow
def test_a_detector_of_every_start_leaves_its_record(coco):
    from densessl.slurm.study import running

    small = ("--steps", 2, "--no-trial", "--seeds", 1, "--labels", "100", "--methods", "simclr")
    told = coco_words(coco, *small, "--mini", task="mask")
    plan, graph = running.planned(main.parser().parse_args(told[1:]), coco / "out", "study")
    for job in graph.jobs():
        assert densessl.main(list(map(str, job.argv))) == 0, job.name
    found = {}
    for file in (coco / "out" / "results").rglob("result.json"):
        found[file.parts[-4]] = json.loads(file.read_text())
    assert set(found) == {"random", "simclr"}
    assert all(record["mini"] and "segm/AP" in record["metrics"] for record in found.values())
    assert (coco / "out" / "report.html").is_file()
