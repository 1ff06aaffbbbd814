"""``densessl reproduce``: what it shows before it begins, and a whole table in miniature."""

import os
from pathlib import Path

import pytest

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import results
from densessl.slurm import data, expansion, pipeline, reproduce

GOLDEN = Path(__file__).parents[1] / "golden" / "reproduce"


def shown(capsys, *argv):
    assert reproduce.main(list(argv)) == 0
    return capsys.readouterr().out


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    """No data set is anywhere, and no settings of a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("setsim/table4", ["--gpus", "8", "--data", "imagenet=/data/in1k", "/data/detection"]),
        ("scfs/table7", ["--nodes", "2", "--gpus", "4", "--trials", "2", "--data", "/data"]),
    ],
)
def test_a_dry_run_shows_the_jobs_what_is_missing_and_the_cost(name, words, capsys, no_data):
    """Written by DENSESSL_WRITE_GOLDEN=1, and read through before it was kept."""
    text = shown(capsys, name, "--dry-run", "-o", "/runs/paper", *words)
    file = GOLDEN / f"{name.replace('/', '_')}.txt"
    if os.environ.get("DENSESSL_WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_a_dry_run_says_what_is_done(tmp_path, capsys, no_data):
    out = str(tmp_path / "run")
    assert "[to do] scenes\n" in shown(capsys, "demo", "--dry-run", "-o", out, "--gpus", "0")
    found = reproduce.load(reproduce.parser().parse_args(["demo", "-o", out, "--gpus", "0"]))
    from densessl.slurm.graph import Finished

    scenes = tmp_path / "run" / "scenes" / "densessl_scenes.json"
    scenes.parent.mkdir(parents=True)
    scenes.write_text("{}")
    Finished(found.jobs, found.folder).mark("scenes", 1.0)
    assert "[done] scenes\n" in shown(capsys, "demo", "--dry-run", "-o", out, "--gpus", "0")


def test_the_list_names_every_table(capsys):
    lines = shown(capsys, "--list").splitlines()
    assert [line.split()[0] for line in lines] == list(pipeline.built_in())
    order = [line.split()[0] for line in lines if line.startswith("scfs/table")]
    assert order == [f"scfs/table{n}" for n in range(1, 11)]


def test_without_slurm_both_ways_are_named(monkeypatch, no_data):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentLacks, match="login node.*--local"):
        reproduce.main(["setsim/table1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "TABLE is missing: one of demo, evidence/photos"),
        (["setsim/table99", "--dry-run"], "Did you mean 'setsim/table"),
        (["setsim/table1", "--trials", "0"], "--trials: .* is 0; .*at least 1"),
        (["setsim/table1", "--dry-run", "--weights", "moco.pth"], "is not METHOD=FILE"),
        (["setsim/table1", "--dry-run", "--weights", "MoCo=x.pth"], "Did you mean 'MoCo-v2'"),
        (["setsim/table1", "--dry-run", "--data", "coco=x"], "unknown data set 'coco'"),
        (["setsim/table1", "--dry-run", "--gpus", "3"], "3 processes cannot share"),
    ],
)
def test_what_is_wrong_with_the_call(words, message, no_data):
    with pytest.raises(InputError, match=message):
        reproduce.main(words)


def test_a_full_table_is_not_begun_on_a_machine_without_a_gpu(monkeypatch, no_data):
    monkeypatch.setattr(reproduce, "gpus_here", lambda: 0)
    with pytest.raises(InputError, match="needs GPUs.*--mini"):
        reproduce.main(["setsim/table1", "--local"])


def test_missing_data_are_said_before_anything_is_made(monkeypatch, tmp_path, no_data):
    monkeypatch.setattr(reproduce, "gpus_here", lambda: 1)
    with pytest.raises(InputError, match="(?s)data sets are missing.*imagenet/train: .*VOC2007"):
        reproduce.main(["setsim/table1", "--local", "-o", "out"])
    assert not (tmp_path / "out").exists()


BEYOND = """
data: DATA
rows: [{method: random, start: random}, {method: MoCo, pretrain: moco_v2}]
protocols: [{name: voc_det_c4, trials: 1}]
"""


@pytest.fixture
def beyond(no_data, tmp_path):
    """A pipeline file whose pretraining reads what it is given."""

    def write(reads):
        file = tmp_path / "mine.yaml"
        file.write_text(BEYOND.replace("DATA", reads))
        return str(file)

    return write


@pytest.mark.parametrize(
    ("reads", "words", "path"),
    [
        ("s3://bucket/my%20data/100%/a=b//c", [], "s3://bucket/my%20data/100%/a=b//c"),
        ("imagenet/train", ["imagenet=gs://b/in%d"], "gs://b/in%d/train"),
        ("imagenet", ["imagenet=hf://datasets/u/n/"], "hf://datasets/u/n"),
        ("s3://a/x:tiny/train", ["/data"], "s3://a/x:/data/tiny/train"),
        ("tiny/train:s3://a/x", ["tiny=s3://b"], "s3://b/train:s3://a/x"),
    ],
)
def test_addresses_reach_the_pretraining_as_they_are(reads, words, path, beyond, capsys):
    words = ["--data", *words] if words else []
    text = shown(capsys, beyond(reads), "--dry-run", "-o", "/runs/mine", *words)
    (line,) = (line for line in text.splitlines() if "densessl pretrain" in line)
    assert f"DATA.PATH {path} " in line.replace("'", "")
    missing = [line.split(":")[0].strip() for line in text.splitlines() if ": /" in line]
    on_disk = ["tiny/train"] if "/data" in words else []
    assert missing == ["VOC2007", "VOC2012", *on_disk]


@pytest.mark.parametrize(
    ("reads", "words", "message"),
    [
        ("s4://bucket/x", [], "unknown kind of address 's4://' in DATA.PATH"),
        ("s3://me:secret@bucket/x", [], "DATA.PATH has an address with a user or a password"),
        ("imagenet/train", ["imagenet=s4://b"], "unknown kind of address 's4://' in --data image"),
        ("imagenet/train", ["s3://b"], "--data 's3://b' is beyond the disk; .* imagenet=s3://"),
        ("imagenet/train", ["VOC2007=s3://b"], "--data VOC2007=s3://b: voc_det_c4 reads .* a disk"),
        ("imagenet/train", ["coco=s3://b"], "unknown data set 'coco'"),
    ],
)
def test_addresses_that_cannot_be_read_are_said_at_once(reads, words, message, beyond):
    words = ["--data", *words] if words else []
    with pytest.raises(InputError, match=message) as error:
        reproduce.main([beyond(reads), "--dry-run", *words])
    assert "secret" not in str(error.value)


def test_data_sets_beyond_the_disk_get_no_link(tmp_path):
    (tmp_path / "VOC2007").mkdir()
    named = data.parse([str(tmp_path), "imagenet=s3://b/in"], tmp_path / "run")
    named.link(["imagenet/train", "VOC2007", "s3://c/x"])
    assert [path.name for path in (tmp_path / "run" / "data").iterdir()] == ["VOC2007"]


@pytest.mark.slow
def test_a_papers_table_runs_in_miniature_to_a_rendered_table(tmp_path):
    """ReSim's ImageNet-100 table: a random start, MoCo-v2 and ReSim-C4."""
    small = {
        "scenes": {"train": 16, "val": 4, "size": 96},
        "pretrain": ("SOLVER.MAX_STEPS", "2", "SOLVER.BATCH_SIZE", "8"),
        "transfer": ("SOLVER.MAX_ITER", "2", "TEST.PRECISE_BN.NUM_ITER", "1"),
    }

    def load():
        where = data.parse([], tmp_path)
        call = expansion.Call(tmp_path, where, mini=True, gpus=0, local=True, **small)
        return expansion.expand(pipeline.read("resim/in100_voc"), call)

    found = load()
    found.prepare()
    assert reproduce.run_here(found) == 0
    records = results.collect([tmp_path / "transfer"])
    assert sorted(record.method for record in records) == ["moco", "random", "resim"]
    assert all(record.mini for record in records)
    table = (tmp_path / "tables" / "resim_in100_voc-mini.md").read_text()
    assert "random" in table and "not comparable with published numbers" in table
    found = load()
    assert all(map(found.is_done(), (job.name for job in found.jobs)))
