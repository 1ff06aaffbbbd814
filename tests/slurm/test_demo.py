"""The graph of the demo: what runs after what, and what the children are told."""

import shutil

import pytest

from console.errors import EnvironmentLacks
from d2_transfer import results
from slurm import demo
from slurm.graph import in_order
from slurm.local import run_local


def test_every_start_is_fine_tuned_on_the_scenes_and_the_table_comes_last(tmp_path):
    graph = {job.name: job for job in in_order(demo.jobs(tmp_path, trials=2))}
    assert list(graph)[0] == "scenes" and list(graph)[-1] == "table"
    for start in ("random", "moco", "setsim"):
        job = graph[f"transfer-{start}"]
        assert job.env["DETECTRON2_DATASETS"] == str(tmp_path / "scenes")
        assert ("--mini" in job.argv) and job.argv[job.argv.index("--trials") + 1] == 2
        assert job.name in graph["table"].needs
    assert graph["transfer-random"].needs == ("scenes",)
    assert graph["transfer-moco"].needs == ("convert-moco",)
    for job in graph.values():  # what a job reads of the graph's is written by one that it needs
        before = closure(graph, job)
        written = {output for name in before for output in graph[name].outputs}
        read = {each for other in graph.values() for each in other.outputs} & set(job.argv)
        assert read - set(job.outputs) <= written, job.name


def closure(graph, job):
    return {name for need in job.needs for name in {need} | closure(graph, graph[need])}


def test_overrides_reach_their_verbs(tmp_path):
    graph = demo.jobs(
        tmp_path, trials=1, pretrain=("SOLVER.MAX_STEPS", 2), transfer=("SOLVER.MAX_ITER", 3)
    )
    for job in graph:
        assert ("SOLVER.MAX_STEPS" in job.argv) == job.name.startswith("pretrain")
        assert ("SOLVER.MAX_ITER" in job.argv) == job.name.startswith("transfer")


def test_too_little_disk_is_said_before_anything_runs(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentLacks, match="needs 3.0 GB.* 1.0 GB"):
        demo.main(["-o", str(tmp_path / "demo")])
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_whole_way_runs_and_is_not_run_twice(tmp_path):
    graph = demo.jobs(
        tmp_path,
        trials=1,
        train=16,
        val=4,
        size=96,
        pretrain=("SOLVER.MAX_STEPS", 1, "SOLVER.BATCH_SIZE", 8, "VIEWS.SIZE", 64),
        transfer=("SOLVER.MAX_ITER", 2, "TEST.PRECISE_BN.NUM_ITER", 1),
    )
    run_local(graph, tmp_path)
    records = results.collect([tmp_path / "transfer"])
    assert {record.method for record in records} == {"random", "moco", "setsim"}
    assert all(record.mini and record.protocol == "voc_det_c4" for record in records)
    table = (tmp_path / "table.md").read_text()
    assert table.count("\n| ") == 5 and "not comparable with published numbers" in table
    for name in ("detections_setsim.png", "views_moco/000003.png", "views_setsim/000003.png"):
        assert (tmp_path / "pictures" / name).stat().st_size > 50_000

    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in files}
    run_local(graph, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in files} == before
