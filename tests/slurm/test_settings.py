"""``slurm.yaml`` and the flags: what is read, what wins, what is refused."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from densessl.core.errors import InputError
from densessl.slurm import settings
from densessl.slurm.graph import Job
from densessl.slurm.settings import Cluster, Settings, minutes, understood

EXAMPLE = """\
partition: gpu
account: vision
time: 24:00:00
cpus_per_gpu: 10
mem_gb: 400
gpu_type: a100
modules: [cuda/12.4, gcc]
setup:
  - source ~/env.sh
  - export NCCL_DEBUG=WARN
extra:
  mail-type: FAIL
  exclusive: true
table:
  partition: cpu
  time: 30
  account: ""
"""
PRETRAIN = Job("p", ("pretrain", "--config", "moco_v2"))
TABLE = Job("t", ("table", "DIR"))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The working folder and the user's config folder, both empty."""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    (home / "densessl").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    return work, home / "densessl"


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16", "utf-32"])
def test_the_file_may_be_in_any_form_of_unicode(places, form):
    (places[0] / "slurm.yaml").write_text("account: é\n", encoding=form)
    assert settings.load().of(PRETRAIN).account == "é"


def test_a_file_with_a_section_for_one_verb(places):
    (places[0] / "slurm.yaml").write_text(EXAMPLE)
    cluster = settings.load()
    of_pretrain = cluster.of(PRETRAIN)
    assert of_pretrain == Settings(
        partition="gpu",
        account="vision",
        time="24:00:00",  # YAML would have made 86400 of it
        cpus_per_gpu=10,
        mem_gb=400.0,
        gpu_type="a100",
        modules=("cuda/12.4", "gcc"),
        setup=("source ~/env.sh", "export NCCL_DEBUG=WARN"),
        extra={"mail-type": "FAIL", "exclusive": True},
    )
    of_table = cluster.of(TABLE)
    assert (of_table.partition, of_table.time, of_table.account) == ("cpu", "30", "")
    assert of_table.cpus_per_gpu == 10
    assert cluster.of(Job("x", ("table",), program=("python", "-c"))).partition == "gpu"


def test_the_example_of_the_docs_is_right(places):
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    (places[0] / "slurm.yaml").write_text(example)
    cluster = settings.load()
    assert {each.name for each in fields(Settings)} == set(cluster.base)  # it names every key
    assert cluster.of(PRETRAIN).time == "24:00:00" and cluster.of(TABLE).constraint == ""


def test_flags_win_over_sections_too(places):
    (places[0] / "slurm.yaml").write_text(EXAMPLE)
    cluster = settings.load({"partition": "debug", "cpus_per_gpu": "4", "time": None})
    for job in (PRETRAIN, TABLE):
        assert (cluster.of(job).partition, cluster.of(job).cpus_per_gpu) == ("debug", 4)
    assert cluster.of(PRETRAIN).time == "24:00:00"


def test_the_working_folders_file_comes_before_the_users(places):
    work, home = places
    assert settings.find() is None and settings.load().of(PRETRAIN) == Settings()
    (home / "slurm.yaml").write_text("partition: home")
    assert settings.load().of(PRETRAIN).partition == "home"
    (work / "slurm.yaml").write_text("partition: work")
    assert settings.load().of(PRETRAIN).partition == "work"


def test_settings_outlive_json(places):
    import json

    (places[0] / "slurm.yaml").write_text(EXAMPLE)
    cluster = settings.load({"qos": "high"})
    again = Cluster.from_dict(json.loads(json.dumps(cluster.as_dict())))
    assert again.chdir == str(places[0])
    for job in (PRETRAIN, TABLE):
        assert again.of(job) == cluster.of(job)
    with pytest.raises(InputError, match="not settings"):
        Cluster.from_dict({"base": {}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partion: gpu", r"'partion' in .*slurm.yaml. Did you mean 'partition'"),
        ("pretrian: {time: 10}", r"Did you mean 'pretrain'"),
        ("pretrain: gpu", r"pretrain in .* is a section"),
        ("pretrain: {tim: 10}", r"'tim' in pretrain of .*mean 'time'"),
        ("time: tomorrow", r"'tomorrow' in .*HOURS:MINUTES:SECONDS"),
        ("time: 0", r"'0' in"),
        ("time: 1:2:3:4", r"'1:2:3:4' in"),
        ("cpus_per_gpu: many", r"cpus_per_gpu in .* 'many'; .* whole number, at least 1"),
        ("max_requeues: -1", r"max_requeues in .* is -1; .* at least 0"),
        ("mem_gb: 0", r"above 0"),
        ("mem_gb: inf", r"above 0"),
        ("partition: [a, b]", r"must be text"),
        ("modules: {a: b}", r"modules in .* must be a list"),
        ("modules: ['cuda; rm x']", r"'cuda; rm x' in modules"),
        ("extra: exclusive", r"extra in .*'exclusive'; it must be a group of keys"),
        ("extra: {dependency: singleton}", r"must not hold 'dependency'"),
        ("extra: {--cpus_per_task: 4}", r"must not hold '--cpus_per_task'"),
        ('container: "run \'x"', r"No closing quotation"),
        ("gpu_request: gpus", r"'gpus' in .*Allowed: gpus-per-node, gres, none"),
        ("- partition", r"must hold keys"),
        ("a: [", r"is not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(places, text, message):
    (places[0] / "slurm.yaml").write_text(text)
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        settings.load()


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 90),
        ("90:30", 91),
        ("0:30", 1),
        ("24:00", 24),
        ("24:00:00", 1440),
        ("1:30:00", 90),
        ("2-0", 2880),
        ("2-12", 3600),
        ("1-06:30", 1830),
        ("1-00:00:01", 1441),
    ],
)
def test_times_are_as_slurm_reads_them(time, expected):
    assert minutes(time) == expected


def test_a_time_that_is_easily_misread_is_said_in_words():
    assert understood("24:00") == (
        "24 minutes (24:00 is MINUTES:SECONDS to SLURM; 24 hours are 24:00:00)"
    )
    assert understood("1-06:30") == "1 day, 6 hours, 30 minutes"


def test_a_time_limit_leaves_time_to_work():
    cluster = Cluster({"time": "3", "signal_delay": 120})
    with pytest.raises(InputError, match="time limit of 'p' is 3 minutes.*signal_delay 120 s"):
        cluster.of(PRETRAIN)
    assert Cluster({"time": "4", "signal_delay": 120}).of(PRETRAIN).time == "4"
