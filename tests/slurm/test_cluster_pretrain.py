"""From drawn images to a table on a real SLURM; the pretraining is stopped in the middle."""

import json

import pytest

from densessl.d2_transfer import results
from densessl.slurm import jobs, state, submission
from densessl.slurm.graph import Job

pytestmark = pytest.mark.slow


@pytest.fixture
def graph(tiny, tmp_path):
    """Scenes, a pretraining of eight processes twice, one's conversion, five trials, the table."""
    scenes = tmp_path / "scenes"
    options = ("BACKBONE.NAME", "resnet18", "SOLVER.BATCH_SIZE", 16)
    options += ("DATA.PATH", scenes / "imagenet" / "train")
    options += ("BACKBONE.GROUP_SIZE", 2, "SOLVER.EPOCHS", 10, "LOG.PERIOD", 1)
    options += ("CHECKPOINT.STEPS", 1000)
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny("moco", tmp_path / "unused", *options).dump())
    words = ("scenes", scenes, "--train", 32, "--val", 8, "--size", 64)
    weights = tmp_path / "weights.pth"
    trials = jobs.transfer_jobs(
        *(weights, "knn", None, 5, tmp_path / "knn"),
        needs=("convert",),
        data=scenes,
        gpus=0,
        mini=True,
    )
    names = [job.name for job in trials]
    return [
        Job("scenes", words, outputs=(scenes / "densessl_scenes.json",)),
        *(
            jobs.pretrain_job(str(config), (), tmp_path / name, name=name, needs=("scenes",))
            for name in ("stopped", "whole")
        ),
        jobs.convert_job(tmp_path / "stopped" / "backbone_final.pth", weights, needs=("stopped",)),
        *trials,
        jobs.table_job((tmp_path / "knn",), tmp_path / "table.md", after=names),
    ]


def test_a_graph_whose_pretraining_is_stopped_ends_as_if_nothing_had_been(
    cluster, graph, check_same_run, rows, tmp_path
):
    submission.submit(graph, tmp_path, cluster.settings(tmp_path))
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    cluster.wait_for(tmp_path, "stopped", "running")
    said = rows(tmp_path)  # before its first step, which comes long after
    assert said["stopped"]["state"] == "running" and said["table"]["state"] == "queued"
    cluster.wait_until(lambda: metrics.exists() and metrics.stat().st_size, "a step")
    cluster.run("scancel", "--signal=USR2", cluster.number(tmp_path, "stopped"))
    cluster.wait_for(tmp_path, "stopped", "requeued")
    steps = [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()]
    assert 0 < len(steps) < 20
    cluster.wait()
    said = rows(tmp_path)
    assert {row["state"] for row in said.values()} == {"done"}, said
    assert state.read_state(tmp_path, "stopped").requeues == 1
    log = (tmp_path / "stopped" / "log.txt").read_text()
    assert f"resuming after step {steps[-1]}" in log and "8 processes" in log
    check_same_run(tmp_path / "stopped", tmp_path / "whole")
    records = results.collect([tmp_path / "knn"])
    assert [record.seed for record in records] == [1, 2, 3, 4, 5]
    assert {record.method for record in records} == {"moco"}
    assert "| moco |" in (tmp_path / "table.md").read_text()
