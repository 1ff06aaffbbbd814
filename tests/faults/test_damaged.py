"""Damaged and foreign files, and words that no path or number can be: one message, exit code 2."""

import json
import os
import random
import shutil

import pytest
import torch

import densessl
from densessl.core.checkpoint import sidecar
from densessl.core.files import sha256

from . import fuzzing
from .test_fine_tuning import flip

SEEDS = 20
FAST = 3  # of them are among the fast tests
LONG = "a" * 300  # no file system takes it
BIG = "9" * 30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures, a backbone of one's own, and ``whole``: the folder of an undisturbed run."""
    root = tmp_path_factory.mktemp("made")
    fuzzing.pictures(root / "pictures", 12)
    (root / "small.py").write_text(fuzzing.BACKBONE)
    fuzzing.pipeline(root)
    assert train(root, root / "whole") == 0
    return root


def train(root, folder):
    options = [*fuzzing.pretraining(root, folder), "SOLVER.MAX_STEPS", "3"]
    return densessl.main(["pretrain", "--config", "moco_v2", *options])


@pytest.fixture
def begun(made, tmp_path):
    """A copy of the run as it was when two of its three steps were done and saved."""
    folder = tmp_path / "run"
    shutil.copytree(made / "whole", folder)
    for file in (*folder.glob("backbone_final*"), *folder.glob("checkpoints/*3.pth*")):
        file.unlink()
    return folder


@pytest.fixture
def refused(capsys):
    """``refused(words, *named)``: the command ends with 2 and one message that names these."""

    def check(words, *named):
        capsys.readouterr()
        assert densessl.main([str(word) for word in words]) == 2
        shown = capsys.readouterr()
        begun, message = f"\n{shown.err}".rsplit(f"\ndensessl {words[0]}: ", 1)
        assert "\n\n" not in message and "Traceback" not in begun, shown.err
        assert all(str(each) in message for each in named), shown.err
        assert "Traceback" not in message and "weights_only" not in message
        return message

    return check


def same(folder, whole):
    """Whether two runs ended with the same weights, bit for bit."""
    one, other = (
        torch.load(run / "backbone_final.pth", weights_only=True)["backbone"]
        for run in (folder, whole)
    )
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["iteration"], line["loss"]) for line in lines]


# ----------------------------------------------------------------------- checkpoints of a run


def truncated(rng, data):
    return data[: rng.randrange(1, len(data))]


def flipped(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def empty(rng, data):
    return b""


@pytest.mark.parametrize("harm", [truncated, flipped, empty])
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_the_run_resumes_from_the_checkpoint_before(made, begun, caplog, seed, harm):
    newest = begun / "checkpoints" / "step_00000002.pth"
    newest.write_bytes(harm(random.Random(seed), newest.read_bytes()))
    assert train(made, begun) == 0
    assert same(begun, made / "whole") and lines_of(begun) == lines_of(made / "whole")
    log = (begun / "log.txt").read_text()
    assert f"{newest} is damaged" in log and "resuming after step 1" in log


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_all_damaged_is_never_a_new_run(made, begun, refused, seed):
    rng = random.Random(seed)
    for file in begun.glob("checkpoints/*.pth"):
        harm = rng.choice((truncated, flipped, empty))
        file.write_bytes(harm(rng, file.read_bytes()))
    before = {file: file.read_bytes() for file in begun.glob("checkpoints/*")}
    options = [*fuzzing.pretraining(made, begun), "SOLVER.MAX_STEPS", "3"]
    refused(["pretrain", "--config", "moco_v2", *options], begun / "checkpoints", "2 of 2")
    assert {file: file.read_bytes() for file in begun.glob("checkpoints/*")} == before


@pytest.mark.parametrize("alone", [False, True])
def test_a_flipped_bit_in_a_pretrained_backbone_is_refused_by_every_reader(
    made, tmp_path, refused, pictures, alone
):
    file, out = tmp_path / "backbone_final.pth", tmp_path / "out.pkl"
    shutil.copy(made / "whole" / file.name, file)
    if not alone:
        shutil.copy(sidecar(made / "whole" / file.name), sidecar(file))
    flip(file)
    for words in (["show", file, pictures], ["inspect", file], ["convert", file]):
        more = [] if words[0] == "inspect" else ["-o", out]
        refused([*words, *more], file, "is damaged")
    assert not out.exists()


def without(key):
    return lambda held: {name: value for name, value in held.items() if name != key}


def with_value(key, value):
    return lambda held: held | {key: value}


def with_a_wrong_momentum(held):
    held["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(3)
    return held


def with_a_wrong_rate(held):
    held["optimizer"]["param_groups"][0]["lr"] = "fast"
    return held


FOREIGN = {
    "a number": lambda held: 3,
    "a list": lambda held: [held],
    "a tensor": lambda held: torch.zeros(3),
    "somebody's": lambda held: {"state_dict": held["model"], "epoch": 3},
    "an object": lambda held: fuzzing.Case([]),
    "without logs": without("logs"),
    "without facts": without("pretrain"),
    "a config of numbers": with_value("config", "3"),
    "a config that is no YAML": with_value("config", "a: ["),
    "a step of text": with_value("iteration", "2"),
    "another step": with_value("iteration", 1),
    "weights of another": lambda held: held | {"model": held["backbone"]},
    "momentum of another shape": with_a_wrong_momentum,
    "a learning rate of text": with_a_wrong_rate,
    "images that are not there": with_value("unreadable", [10**6]),
    "a mean of lists": with_value("normalization", {"mean": [0.5, [], 0.5], "std": [1, 1, 1]}),
    "a range of text": with_value("range", ["low", "high"]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_another_content_with_a_right_checksum_is_refused(made, begun, refused, name):
    file = begun / "checkpoints" / "step_00000002.pth"
    torch.save(FOREIGN[name](torch.load(file, weights_only=True)), file)
    sidecar(file).write_text(f"{sha256(file)}  {file.name}\n")
    before = {each: each.read_bytes() for each in begun.glob("checkpoints/*")}
    options = [*fuzzing.pretraining(made, begun), "SOLVER.MAX_STEPS", "3"]
    refused(["pretrain", "--config", "moco_v2", *options], file)
    assert {each: each.read_bytes() for each in begun.glob("checkpoints/*")} == before


# -------------------------------------------------------------------------- numbers of a run

BAD_LINES = [b'{"iteration": 1, "lo', b"5", b'{"loss": 1}', b'{"iteration": "x"}', b"[" * 5000]
BAD_LINES += [b"\xff\xfe{", b"\0" * 40, b'{"iteration": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_lines_after_a_bad_one_are_kept(made, begun, bad):
    file = begun / "metrics.jsonl"
    first, *others = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + bad + b"\n" + b"".join(others))
    assert train(made, begun) == 0
    assert lines_of(begun) == lines_of(made / "whole")
    log = (begun / "log.txt").read_text()
    assert f"{file} is damaged: 1 line" in log and "(2)" in log


def test_a_line_that_a_kill_cut_short_is_no_damage(made, begun):
    with open(begun / "metrics.jsonl", "ab") as stream:
        stream.write(b'{"iteration": 3, "lo')
    assert train(made, begun) == 0
    assert lines_of(begun) == lines_of(made / "whole")
    assert "damaged" not in (begun / "log.txt").read_text()


def test_lines_of_other_trials_are_kept_beside_a_bad_one(tmp_path, caplog):
    from densessl.core.metrics import Metrics
    from densessl.d2_transfer.trials import cut_back

    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"trial": trial, "iteration": 2}) for trial in (1, 1, 2)]
    file.write_text("\n".join([lines[0], "{", *lines[1:], '{"trial": 1, "iteration": 9}', ""]))
    cut_back(Metrics(file), 1, 2)
    assert file.read_text().splitlines() == lines


# ------------------------------------------------------------------ folders of trials and jobs

TEXTS = {
    "run.json": (b"{", b"[]", b"3", b"", b"\xff\xfe\0", b'{"a": "\x1b[31m"}', b"[" * 5000),
    "config.yaml": (b"a: [", b"- 1", b"3", b"", b"\xff\xfe\0", b"a: &a [*a]", b"SEED: 2001-13-01"),
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts]
)
def test_what_a_folder_of_trials_was_begun_with_is_damaged(tmp_path, name, text):
    """As every protocol does it, before anything is trained."""
    from densessl.core.errors import InputError
    from densessl.d2_transfer import evaluate_only, results, trials
    from densessl.d2_transfer.run import Run, check_folder, check_trials
    from densessl.d2_transfer.weights import Weights

    folder = tmp_path / "out" / "trial_1"
    folder.mkdir(parents=True)
    good = {"run.json": b'{"protocol": "knn"}', "config.yaml": b"SEED: 1\n"} | {name: text}
    for file, content in good.items():
        (folder.parent / file).write_bytes(content)
    (folder / "config.yaml").write_bytes(good["config.yaml"])
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    run = Run(folder.parent, "knn", "", False, Weights("random", "", "", "Random"), tmp_path)
    with pytest.raises(InputError, match=name):
        check_folder(run, densessl_config())
    if name == "config.yaml":
        with pytest.raises(InputError, match=name):
            check_trials(run, densessl_config(), 1, 1)
    with pytest.raises(InputError, match=name):
        evaluate_only.origin(folder / "model_final.pth")
    assert trials.run_trials and results.FILE  # the same module reads them on resuming


def densessl_config():
    from densessl.d2_transfer.resolve import resolve

    return resolve("knn", None, 1, mini=True, cuda=False)


GRAPHS = (b"{", b"[]", b'{"jobs": 3}', b'{"jobs": [], "settings": []}', b"", b"\xff\xfe\0")


@pytest.mark.parametrize("text", GRAPHS, ids=range(len(GRAPHS)))
@pytest.mark.parametrize("words", ["status", "status --json", "cancel", "submit retry"])
def test_a_damaged_graph(tmp_path, refused, words, text):
    (tmp_path / "graph.json").write_bytes(text)
    refused([*words.split(), tmp_path], tmp_path / "graph.json")


# ------------------------------------------------------------------------- words and numbers

TRANSFER = "transfer random --protocol"
OWN = f"{TRANSFER} custom_semseg --mini -o out --train-images pictures --train-masks {LONG}"
PLACES = (  # each with a path that can be none
    f"pretrain --config {LONG}",
    f"pretrain --config moco_v2_scenes DATA.PATH {LONG} OUTPUT_DIR out",
    f"pretrain --config moco_v2_scenes DATA.PATH pictures OUTPUT_DIR {LONG} SOLVER.BATCH_SIZE 8",
    f"pretrain --config moco_v2_scenes DATA.PATH pictures BACKBONE.WEIGHTS {LONG} OUTPUT_DIR out",
    f"convert {LONG} -o out.pkl",
    f"inspect {LONG}",
    f"transfer {LONG} --protocol knn --mini -o out",
    f"{TRANSFER} knn --data {LONG} -o out",
    f"{TRANSFER} knn --mini --data pictures -o {LONG}",
    f"{OWN} --val-images pictures --val-masks pictures",
    f"{TRANSFER} custom_det --train-json {LONG} --train-images a --val-json b --val-images c -o d",
    f"prepare ade20k --data {LONG}",
    f"table {LONG}",
    f"table --paper setsim/table4 -o {LONG}.md",
    f"compare {LONG} {LONG}",
    f"plot curves {LONG} -o a.svg",
    f"report {LONG} -o a.html",
    f"audit {LONG}",
    f"audit pictures -o {LONG}.json",
    f"advise {LONG} --no-trial",
    f"show {LONG} pictures/00.jpg -o out",
    f"scenes {LONG} --train 8 --val 2",
    f"submit pretrain --config moco_v2 DATA.PATH {LONG} -o {LONG} --dry-run --settings {LONG}",
    f"submit transfer {LONG} --protocol knn -o out --settings {LONG} --dry-run",
    f"submit pipeline {LONG} -o out --dry-run",
    f"submit retry {LONG}",
    f"reproduce {LONG} -o out --local --dry-run",
    f"reproduce pipeline.yaml -o {LONG} --local --mini",
    f"study --images {LONG} --train a:b --val a:b -o out --local --dry-run",
    f"status {LONG}",
    f"cancel {LONG}",
    f"demo -o {LONG}",
)


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A working folder that a refused command leaves as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", "nowhere")
    os.symlink(made / "pictures", "pictures")
    shutil.copy(made / "pipeline.yaml", "pipeline.yaml")
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["pictures", "pipeline.yaml"]


@pytest.mark.parametrize("words", PLACES)
def test_a_name_that_no_file_system_takes(here, refused, words):
    assert len(refused(words.split())) < 1000


NUMBERS = (
    f"pretrain --config moco_v2 DATA.PATH pictures SEED {BIG} --print-config",
    f"{TRANSFER} voc_det_c4 --trials {BIG} -o out",
    f"{TRANSFER} voc_det_c4 --seed {BIG} -o out",
    f"{TRANSFER} voc_det_c4 --gpus {BIG} -o out",
    f"{TRANSFER} voc_det_c4 SOLVER.MAX_ITER {BIG} --print-config",
    f"{TRANSFER} knn KNN.KS ({BIG},) --print-config",
    f"{TRANSFER} linear_semseg DATALOADER.NUM_WORKERS {BIG} --print-config",
    f"prepare ade20k --workers {BIG}",
    f"audit pictures --workers {BIG}",
    f"advise pictures --gpus {BIG} --no-trial",
    f"show pictures/00.jpg pictures/00.jpg --seed {BIG} -o out",
    f"show pictures/00.jpg pictures/00.jpg --size {BIG} -o out",
    f"scenes out --train {BIG}",
    f"scenes out --seed {BIG}",
    f"scenes out --workers {BIG}",
    f"submit pretrain --config moco_v2 DATA.PATH pictures --gpus {BIG} --dry-run",
    f"submit pretrain --config moco_v2 DATA.PATH pictures --nodes {BIG} --dry-run",
    f"submit transfer random --protocol knn --trials {BIG} -o out --dry-run",
    f"reproduce pipeline.yaml -o out --local --jobs {BIG} --dry-run",
    f"reproduce pipeline.yaml -o out --seeds {BIG} --dry-run",
    f"study --images pictures --train a:b --val a:b --seeds {BIG} -o out --local --dry-run",
    f"demo --seed {BIG} -o out",
)


@pytest.mark.parametrize("words", NUMBERS)
def test_a_number_of_thirty_digits(here, refused, words):
    refused(words.split(), BIG)


def test_every_number_of_a_pretraining_has_an_end():
    from densessl.core.errors import InputError
    from densessl.pretrain import config

    options = config.flat(config.defaults())
    for kind, large in ((int, BIG), (float, "1e300")):
        numbers = [name for name, value in options.items() if type(value) is kind]
        assert len(numbers) > 20
        for name in numbers:
            with pytest.raises(InputError, match=name):
                config.check(config.load("moco_v2", ["DATA.PATH", "pictures", name, large]))


HYPHENS = (
    "pretrain --config moco_v2_scenes DATA.PATH pictures OUTPUT_DIR -x",
    "pretrain --config moco_v2_scenes DATA.PATH -x OUTPUT_DIR out",
    f"{TRANSFER} knn -o -x",
    f"{TRANSFER} knn --data -x -o out",
    "convert -x -o out.pkl",
    "table -x",
    "report pictures -o -x",
    "audit -x",
    "scenes -x",
    "show pictures/00.jpg -x -o out",
    "submit pretrain --config moco_v2 DATA.PATH pictures -o -x --dry-run",
    "reproduce pipeline.yaml -o -x --dry-run",
    "status -x",
    "demo -o -x",
)


@pytest.mark.parametrize("words", HYPHENS)
def test_a_name_that_begins_with_a_hyphen_is_refused_with_the_fix(here, refused, words):
    refused(words.split(), "./-x")


@pytest.mark.parametrize("words", [["OUTPUT_DIR=-x"], ["OUTPUT_DIR", "./-x"]])
def test_an_output_folder_that_begins_with_a_hyphen(made, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    options = [*fuzzing.pretraining(made, "out")[2:], "SOLVER.MAX_STEPS", "3"]
    assert densessl.main(["pretrain", "--config", "moco_v2", *options, *words]) == 0
    assert os.listdir() == ["-x"] and same(tmp_path / "-x", made / "whole")


# --------------------------------------------------------------- queues, batches, few images


@pytest.mark.parametrize("sizes", [(10, 4), (5, 4), (4, 8), (8, 5), (7, 12)])
def test_queue_and_images_need_no_multiple_of_the_batch(made, tmp_path, sizes):
    queue, batch = sizes
    folder = tmp_path / "run"
    options = [*fuzzing.pretraining(made, folder), "SOLVER.MAX_STEPS", "3"]
    options += ["MOCO.QUEUE", str(queue), "SOLVER.BATCH_SIZE", str(batch)]
    assert densessl.main(["pretrain", "--config", "moco_v2", *options]) == 0
    assert [step for step, _ in lines_of(folder)] == [1, 2, 3]
    held = torch.load(folder / "checkpoints" / "step_00000003.pth", weights_only=True)["model"]
    keys = held["queue.keys"]
    assert keys.shape[0] == queue
    assert torch.isfinite(keys).all()


def test_fewer_images_than_a_batch_are_refused_with_the_fix(made, tmp_path, refused):
    options = [*fuzzing.pretraining(made, tmp_path / "run"), "SOLVER.BATCH_SIZE", "13"]
    refused(["pretrain", "--config", "moco_v2", *options], "SOLVER.BATCH_SIZE", 13, "at most 12")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------- files that convert does not take


class Runs:
    """Pickled, it would make a file when it is read."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def partial(rng, state):
    del state[rng.choice([name for name in state if name.endswith("conv1.weight")])]
    return state


def renamed(rng, state):
    name = rng.choice([name for name in state if "layer" in name])
    return {("a." + key if key == name else key): value for key, value in state.items()}


def wrong(rng, state):
    name = rng.choice([name for name in state if state[name].ndim == 4])
    return state | {name: state[name][:, :1]}


@pytest.mark.parametrize("harm", [partial, renamed, wrong])
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 2)) for seed in range(SEEDS)],
)
def test_weights_of_no_network_are_refused(tmp_path, refused, seed, harm):
    from torchvision.models import resnet18

    file = tmp_path / "weights.pth"
    torch.save(harm(random.Random(seed), {**resnet18().state_dict()}), file)
    refused(["convert", file, "-o", tmp_path / "out.pkl"], file)
    assert sorted(os.listdir(tmp_path)) == ["weights.pth"]


@pytest.mark.parametrize("prefix", ["module.module.encoder_q.", "backbone.backbone."])
def test_names_that_were_wrapped_twice_are_refused_with_the_words_that_take_them(
    tmp_path, refused, prefix
):
    from torchvision.models import resnet18

    file, out = tmp_path / "weights.pth", tmp_path / "out.pkl"
    state = {prefix + name: tensor for name, tensor in resnet18().state_dict().items()}
    torch.save({"state_dict": state}, file)
    refused(["convert", file, "-o", out], file, f"--from state_dict:{prefix}")
    assert (
        densessl.main(["convert", str(file), "--from", f"state_dict:{prefix}", "-o", str(out)]) == 0
    )


@pytest.mark.parametrize("words", [["convert", "-o", "out.pkl"], ["inspect"], ["transfer"]])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, monkeypatch, refused, words):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "x": Runs(tmp_path / "ran")}, "weights.pth")
    more = ["--protocol", "knn", "--mini", "-o", "out"] if words == ["transfer"] else []
    refused([words[0], "weights.pth", *words[1:], *more])
    assert os.listdir() == ["weights.pth"]
