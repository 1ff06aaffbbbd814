"""Faults of a fine-tuning: damage, kills, stops, full disks. The real command, on small scenes."""

import errno
import importlib
import json
import operator
import os
import random
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from densessl.core import checkpoint, files
from densessl.core.errors import InputError
from densessl.d2_transfer import pictures, results
from densessl.d2_transfer.saved import FINAL

from .test_gpu_memory import OUT_OF_MEMORY

SMALL = ["INPUT.SIZE", "16", "INPUT.RESIZE", "16", "MODEL.BACKBONE", "resnet18"]
LINEAR = [*SMALL, "SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "2"]
DETECTOR = [
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "4", "MODEL.RPN.POST_NMS_TOPK_TEST", "4"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "32", "MODEL.FPN.OUT_CHANNELS", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "TEST.PRECISE_BN.NUM_ITER", "1"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0"),
]
PROBE = ["INPUT.SIZE", "(32, 32)", "MODEL.BACKBONE", "resnet18", "LINEAR.STEPS", "3"]
PROTOCOLS = {"linear": LINEAR, "coco_mask_fpn_1x": DETECTOR, "linear_semseg": PROBE}
TRIALS = {"linear": 2, "coco_mask_fpn_1x": 1}  # of the run that nothing happens to
SEEDS = 20
FAST = 2  # of them are among the fast tests


@pytest.fixture(scope="module")
def scenes(draw_scenes):
    return draw_scenes("--train", "8", "--val", "4")


@pytest.fixture(scope="module")
def words(scenes):
    """``words(protocol, out)``: of the command, two trials of six steps with a checkpoint every two
    unless told otherwise."""

    def of(protocol, out, *more, trials=1):
        where = ["--mini", "--trials", str(trials), "-o", str(out), "--data", str(scenes)]
        return ["transfer", "random", "--protocol", protocol, *where, *PROTOCOLS[protocol], *more]

    return of


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    """``undisturbed(protocol)``: the folder of a run that nothing happened to."""
    made = {}

    def run(protocol):
        if protocol not in made:
            from densessl import main

            made[protocol] = tmp_path_factory.mktemp("whole") / "run"
            assert main(words(protocol, made[protocol], trials=TRIALS[protocol])) == 0
        return made[protocol]

    return run


def outcome(out: Path, trial: int = 1) -> tuple:
    """What must be the same, whatever happened: model, metrics, and the lines of the trial."""
    folder = out / f"trial_{trial}"
    held = torch.load(folder / FINAL, weights_only=True)
    assert held.keys() == {"model"}
    assert not list(out.rglob("*.partial")) and not list(folder.glob("model_0*"))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = [
        {k: v for k, v in line.items() if "time" not in k and "seconds" not in k}
        for line in lines
        if line["trial"] == trial
    ]
    model = {name: value.tolist() for name, value in held["model"].items()}
    return repr(model), repr(results.load(folder).metrics), kept


def flip(file: Path) -> None:
    """Flip one bit in the middle of the file's largest tensor."""
    with zipfile.ZipFile(file) as archive:
        member = max(archive.infolist(), key=lambda each: each.file_size)
    data = bytearray(file.read_bytes())
    data[member.header_offset + 128 + member.file_size // 2] ^= 4
    file.write_bytes(data)


def begin(words) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "densessl", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def stopped(words, tmp_path_factory):
    """``stopped(protocol)``: a new folder of a trial that was asked to stop after four steps."""
    made = {}

    def run(protocol, out):
        if protocol not in made:
            made[protocol] = tmp_path_factory.mktemp("stopped") / "run"
            command = words(protocol, made[protocol])
            done = subprocess.run(
                [sys.executable, "-c", STOP_AFTER_FOUR, protocol, *command],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 75, done.stderr
        shutil.copytree(made[protocol], out)
        return out / "trial_1"

    return run


STOP_AFTER_FOUR = """
import os, signal, sys
from densessl import main
if sys.argv[1] == "linear":
    from densessl.d2_transfer.classification.fit import Fit as trained
    method, done = "_stop_if_asked", lambda self: self.step
else:
    from densessl.d2_transfer.hooks import StopWhenAsked as trained
    method, done = "after_step", lambda self: self.trainer.iter + 1
before = getattr(trained, method)
def stop(self):
    if done(self) == 4:
        os.kill(os.getpid(), signal.SIGUSR1)
    before(self)
setattr(trained, method, stop)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    "protocol", ["linear", pytest.param("coco_mask_fpn_1x", marks=pytest.mark.slow)]
)
def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used(
    protocol, stopped, undisturbed, words, densessl, tmp_path
):
    out = tmp_path / "out"
    trial = stopped(protocol, out)
    older, newest = sorted(trial.glob("model_*.pth"))
    flip(newest)
    said = densessl(*words(protocol, out))
    assert f"{newest} is damaged" in said and said.count("is damaged") == 1
    assert outcome(out) == outcome(undisturbed(protocol))


def run_verb(words) -> None:
    from densessl import main

    sys.exit(main(words))


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_killed_at_any_moment_it_resumes_to_what_an_undisturbed_one_leaves(
    server, wait_for_change, undisturbed, words, tmp_path, seed
):
    """The moments are those at which a file changes; two trials of a classifier."""
    out = tmp_path / "out"

    def begin():
        process = server.Process(target=run_verb, args=(words("linear", out, trials=2),))
        process.start()
        return process

    killed = begin()
    wait_for_change(killed, out, random.Random(seed).randrange(40))  # of about 70
    killed.kill()
    killed.join()
    again = begin()
    again.join()
    assert (killed.exitcode, again.exitcode) == (-signal.SIGKILL, 0)
    whole = undisturbed("linear")
    assert [outcome(out, trial) for trial in (1, 2)] == [outcome(whole, trial) for trial in (1, 2)]
    assert results.load(out / "trial_2").seed == results.load(whole / "trial_2").seed


def test_all_damaged_is_never_a_new_trial(stopped, words, densessl, tmp_path):
    trial = stopped("linear", tmp_path / "out")
    for file in trial.glob("model_*.pth"):
        flip(file)
    said = densessl(*words("linear", tmp_path / "out"), code=2)
    assert "every checkpoint" in said and "(2 of 2)" in said


@pytest.mark.parametrize(
    "protocol", ["linear", pytest.param("coco_mask_fpn_1x", marks=pytest.mark.slow)]
)
def test_a_flipped_bit_in_a_trained_model_is_refused_by_every_reader(
    protocol, undisturbed, words, densessl, tmp_path, scenes
):
    out = tmp_path / "out"
    shutil.copytree(undisturbed(protocol), out)
    model = out / "trial_1" / FINAL
    flip(model)
    evaluate = words(protocol, tmp_path / "again", "--eval-only")
    evaluate[1] = str(model)
    picture, image = tmp_path / "picture.png", next(scenes.rglob("*.jpg"))
    for alone in (False, True):
        for verb in (evaluate, ("inspect", model), ("show", model, image, "-o", picture)):
            said = densessl(*verb, code=2)
            assert str(model) in said and "is damaged" in said
        if protocol == "coco_mask_fpn_1x":
            with pytest.raises(InputError, match=f"{model} is damaged"):
                pictures.main([str(model.parent), "-o", str(picture), "--data", str(scenes)])
        if not alone:
            checkpoint.sidecar(model).unlink()  # the model alone was copied
    assert not picture.exists()


@pytest.mark.parametrize(
    ("protocol", "place", "number"),
    [
        ("linear", "classification.fit:Counts.add", signal.SIGTERM),
        ("linear_semseg", "dense_probes.features:Levels.__call__", signal.SIGUSR1),
        pytest.param(
            "coco_mask_fpn_1x",
            "evaluation.build:Progress.process",
            signal.SIGINT,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_stop_in_the_evaluation_ends_it_and_begins_no_trial(
    protocol, place, number, words, stopped_at, densessl, tmp_path
):
    out = tmp_path / "out"
    late = () if protocol == "linear_semseg" else ("TEST.EVAL_PERIOD", "0")
    command = words(protocol, out, *late, trials=2)
    said = stopped_at(f"densessl.d2_transfer.{place}", number, *command)
    assert f"{number.name}: stopping" in said
    trains = protocol in TRIALS
    what = "stopped in the evaluation; the same command" if trains else "the features are saved"
    assert what in said
    assert (out / "trial_1" / FINAL).is_file() == trains
    assert not (out / "trial_1" / results.FILE).exists() and not (out / "trial_2").exists()
    densessl(*words(protocol, out, *late))
    assert results.load(out / "trial_1").metrics
    assert not list(out.rglob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_a_stop_at_any_stage_of_the_command_is_75(number, words, tmp_path, until):
    """Before anything is trained: while modules are imported and weights are prepared."""
    process = begin(words("linear", tmp_path / "out", trials=2))
    status = Path(f"/proc/{process.pid}/status")

    def listens():
        caught = [line for line in status.read_text().splitlines() if line.startswith("SigCgt")]
        return int(caught[0].split()[1], 16) >> (signal.SIGUSR2 - 1) & 1

    until(listens)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 75 and "Traceback" not in said, said
    assert not (tmp_path / "out" / "trial_2").exists()


@pytest.fixture
def no_room_for(monkeypatch, disk_of):
    """``with no_room_for("result.json", room):`` the disk becomes full as that file is begun, but
    for ``room`` bytes; afterwards it is large again."""
    before = files.atomic

    @contextmanager
    def full(name, room=0):
        @contextmanager
        def atomic(path):
            if str(path).endswith(name):
                found = os.statvfs(disk_of.folder)
                disk_of((found.f_blocks - found.f_bfree) * found.f_frsize + room)
            with before(path) as stream:
                yield stream

        with monkeypatch.context() as patched:
            patched.setattr(files, "atomic", atomic)
            yield
        disk_of(LARGE)

    return full


LARGE = "4g"  # what a trial asks for before it begins


def one_message(said: str, file: Path) -> bool:
    """Whether the last line says of the file that the disk is full, and no other line does."""
    *before, last = said.splitlines()
    full = os.strerror(errno.ENOSPC)
    return str(file) in last and full in last and not any(full in line for line in before)


@pytest.mark.parametrize(
    ("protocol", "name", "room"),
    [
        ("linear", "trial_2/result.json", 0),
        pytest.param("linear", "trial_1/model_0000004.pth", 8192, marks=pytest.mark.slow),
        pytest.param("linear", "trial_2/model_final.pth", 0, marks=pytest.mark.slow),
        pytest.param("linear", "out/summary.json", 0, marks=pytest.mark.slow),
        pytest.param(
            *("coco_mask_fpn_1x", "trial_1/model_0000003.pth", 20_000_000), marks=pytest.mark.slow
        ),
    ],
)
def test_a_full_disk_ends_the_command_and_with_room_it_is_the_undisturbed_run(
    protocol, name, room, words, undisturbed, densessl, no_room_for, disk_of
):
    out = disk_of(LARGE) / "out"
    trials = TRIALS[protocol]
    with no_room_for(name, room):
        said = densessl(*words(protocol, out, trials=2), code=3)
    assert one_message(said, out.parent / name if name.startswith("out") else out / name)
    assert not list(out.rglob("*.partial")) and not (out.parent / name).exists()
    done = sorted(out.glob("trial_*/result.json"))
    assert len(done) == {"trial_1": 0, "trial_2": 1, "out": 2}[Path(name).parts[0]]
    assert (out / "trial_2").exists() == (not name.startswith("trial_1"))
    written = [(file.read_bytes(), file.stat().st_mtime_ns) for file in done]
    densessl(*words(protocol, out, trials=trials))
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in done] == written
    for trial in range(1, trials + 1):
        assert outcome(out, trial) == outcome(undisturbed(protocol), trial)
    summary = json.loads((out / "summary.json").read_text())
    assert summary == json.loads((undisturbed(protocol) / "summary.json").read_text())


@pytest.mark.parametrize(
    "name", ["evaluation.json", pytest.param("result.json", marks=pytest.mark.slow)]
)
def test_a_full_disk_in_an_evaluation_is_one_message_and_with_room_it_is_evaluated(
    name, words, undisturbed, densessl, no_room_for, disk_of
):
    out, trial = disk_of(LARGE) / "out", undisturbed("linear") / "trial_1"
    evaluate = words("linear", out, "--eval-only")
    evaluate[1] = str(trial / FINAL)
    with no_room_for(name):
        assert one_message(densessl(*evaluate, code=3), out / name)
    assert not (out / name).exists()
    densessl(*evaluate)
    assert results.load(out).metrics.items() <= results.load(trial).metrics.items()


@pytest.fixture
def full_gpu(monkeypatch):
    """``with full_gpu("classification.fit", "Fit._one_step", 5):`` the fifth call of it there
    raises PyTorch's own error."""

    @contextmanager
    def full(module, name, call):
        module = importlib.import_module(f"densessl.d2_transfer.{module}")
        before, calls = operator.attrgetter(name)(module), iter(range(1, 100))

        def raises(*args):
            if next(calls) == call:
                raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)
            return before(*args)

        with monkeypatch.context() as patched:
            patched.setattr(f"{module.__name__}.{name}", raises)
            yield

    return full


@pytest.mark.parametrize(
    ("protocol", "place", "less"),
    [
        (
            "linear",
            ("classification.fit", "Fit._one_step", 5),
            ["SOLVER.IMS_PER_BATCH 16 (the rate follows) and another -o", "TEST.IMS_PER_BATCH 32"],
        ),
        (
            "linear_semseg",
            ("dense_probes.features", "Levels.__call__", 1),
            ["TEST.IMS_PER_BATCH ", "FEATURES.POSITIONS "],
        ),
        pytest.param(
            "coco_mask_fpn_1x",
            ("trainer", "Trainer.run_step", 5),
            ["SOLVER.IMS_PER_BATCH 1 SOLVER.BASE_LR ", "INPUT.MAX_SIZE_TRAIN 159 "],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_full_gpu_is_one_message_with_numbers_and_settings_and_the_trial_resumes(
    protocol, place, less, words, undisturbed, densessl, full_gpu, tmp_path
):
    out = tmp_path / "out"
    with full_gpu(*place):
        said = densessl(*words(protocol, out, trials=2), code=3)
    *_, last = said.split("densessl transfer: ")
    assert last.startswith("trial 1: the GPU has too little memory")
    assert "allocate 2.50 GiB" in last and "79.10 GiB" in last and "ALLOC_CONF" not in last
    settings = [line.strip() for line in last.splitlines() if line.startswith("  ")]
    for begin, setting in zip(["SOLVER.AMP.ENABLED True", *less], settings, strict=True):
        assert setting.startswith(begin)
    assert not (out / "trial_2").exists()  # it would need as much
    densessl(*words(protocol, out))
    if protocol in TRIALS:
        assert outcome(out) == outcome(undisturbed(protocol))


def test_a_full_gpu_in_an_evaluation_is_one_message(
    words, undisturbed, densessl, full_gpu, tmp_path
):
    evaluate = words("linear", tmp_path / "out", "--eval-only")
    evaluate[1] = str(undisturbed("linear") / "trial_1" / FINAL)
    with full_gpu("classification.trial", "evaluate", 1):
        said = densessl(*evaluate, code=3)
    assert f"evaluation of {evaluate[1]}: the GPU has too little memory" in said
    assert "TEST.IMS_PER_BATCH 32" in said and "SOLVER.IMS_PER_BATCH" not in said
    densessl(*evaluate)


def test_a_flipped_bit_in_features_on_disk_is_found(tmp_path):
    from densessl.d2_transfer.classification.pieces import Pieces

    class Counting(Pieces):
        def arrays_of(self, numbers):
            return {"features": torch.tensor(list(numbers), dtype=torch.float32)[:, None]}

        def bytes_of(self, images):
            return 4.0 * images

    where = (tmp_path, torch.device("cpu"), "some images", "CACHE")
    made = Counting({}, ("features",), 5, 5, *where)
    made.compute("features")
    assert made.read("features", 0).flatten().tolist() == [0, 1, 2, 3, 4]
    (file,) = made.folder.glob("*.npy")
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="is damaged; delete it"):
        made.read("features", 0)
