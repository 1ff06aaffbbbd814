"""The graph of the demo: what runs after what, and what the children are told."""

from slurm import demo
from slurm.graph import in_order


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
