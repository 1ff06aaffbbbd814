"""The graph of the demo: what runs after what, and what the children are told."""

import math
import re
import shutil
from pathlib import Path

import pytest
from scipy import stats

from densessl.core.errors import EnvironmentLacks
from densessl.d2_transfer import results
from densessl.slurm import demo
from densessl.slurm.graph import in_order
from densessl.slurm.local import run_local


def graph_of(folder, **changes):
    return {job.name: job for job in in_order(demo.load(folder, gpus=0, **changes).jobs)}


STARTS = ("random", "random_bn", "simclr", "simclr-seed1", "simclr-seed2")


def test_every_start_is_probed_on_the_scenes_and_the_table_comes_before_the_report(tmp_path):
    graph = graph_of(tmp_path)
    assert list(graph)[0] == "scenes" and list(graph)[-2:] == ["table", "report"]
    scenes = str(tmp_path / "scenes")
    for start in STARTS:
        job = graph[f"transfer-{start}"]
        trials = "1" if start.startswith("simclr") else "4"
        assert job.argv[job.argv.index("--data") + 1] == scenes
        assert ("--mini" in job.argv) and job.argv[job.argv.index("--trials") + 1] == trials
        assert job.name in graph["table"].before and "scenes" in job.needs
    assert graph["transfer-random"].needs == ("scenes",)
    assert "convert-simclr-seed1" in graph["transfer-simclr-seed1"].needs
    assert graph["detections"].env["DETECTRON2_DATASETS"] == scenes
    names = list(graph)  # two jobs side by side end together
    assert max(map(names.index, (f"pretrain-{each}" for each in STARTS[2:]))) < min(
        names.index(f"transfer-{each}") for each in STARTS[:2]
    )
    for job in graph.values():  # what a job reads of the graph's is written by one before it
        before = closure(graph, job)
        written = {output for name in before for output in graph[name].outputs}
        every = {each for other in graph.values() for each in other.outputs}
        read = every & set(map(Path, job.argv))
        assert read - set(job.outputs) <= written, job.name


def closure(graph, job):
    return {name for need in job.before for name in {need} | closure(graph, graph[need])}


def test_the_jobs_and_their_folders(tmp_path):
    graph = graph_of(tmp_path)
    outputs = {
        name: " ".join(str(output.relative_to(tmp_path)) for output in job.outputs)
        for name, job in graph.items()
    }
    seeds = ("simclr", "simclr-seed1", "simclr-seed2")
    assert outputs == {
        "scenes": "scenes/densessl_scenes.json",
        **{f"pretrain-{each}": f"pretrain/{each}/backbone_final.pth" for each in seeds},
        **{f"convert-{each}": f"weights/{each}.pkl" for each in seeds},
        **{f"transfer-{each}": f"transfer/{each}/summary.json" for each in STARTS},
        "views-simclr": "pictures/views_simclr/000003.png",
        "detector": "detector/summary.json",
        "detections": "pictures/detections.png",
        "report": "report.html",
        "table": "table.md",
    }


def test_overrides_reach_their_verbs(tmp_path):
    changes = {"pretrain": ("SOLVER.MAX_STEPS", "2"), "transfer": ("LINEAR.STEPS", "3")}
    for job in graph_of(tmp_path, trials=1, scenes={"train": 16}, **changes).values():
        assert ("SOLVER.MAX_STEPS" in job.argv) == job.name.startswith("pretrain")
        assert ("LINEAR.STEPS" in job.argv) == job.name.startswith("transfer")
        assert ("16" in job.argv) == (job.name == "scenes")


def test_another_seed_draws_other_scenes(tmp_path):
    for seed in (0, 2):
        jobs = {job.name: job for job in demo.load(tmp_path, seed, gpus=0).jobs}
        drawn = jobs["scenes"].argv
        assert drawn[drawn.index("--seed") + 1] == str(seed)


def test_too_little_disk_is_said_before_anything_runs(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentLacks, match="needs 2.0 GB.* 1.0 GB"):
        demo.main(["-o", str(tmp_path / "demo")])
    assert not (tmp_path / "demo").exists()


LABELS = {"random": "random", "random_bn": "random, data's batch norm", "simclr": "simclr"}


def readme_table() -> dict[str, tuple[float, float, int]]:
    """By method: the mean, the deviation and the number of runs in the README's table."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    row = re.compile(r"^\| ([^|]+) \|.*\| (\d+) × 1 \| \**([\d.]+) ± ([\d.]+)", re.MULTILINE)
    of = {label: method for method, label in LABELS.items()}
    found = {
        of[name]: (float(mean), float(std), int(n)) for name, n, mean, std in row.findall(text)
    }
    assert found.keys() == LABELS.keys()
    return found


def test_the_readme_shows_as_many_runs_as_the_demo_makes(tmp_path):
    graph = graph_of(tmp_path)
    for method, (_, _, shown) in readme_table().items():
        jobs = [job for name, job in graph.items() if name.startswith(f"transfer-{method}")]
        jobs = [job for job in jobs if method != "random" or job.name == "transfer-random"]
        assert sum(int(job.argv[job.argv.index("--trials") + 1]) for job in jobs) == shown


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """The folder of the demo, with one run of each row, and what runs it again."""
    folder = tmp_path_factory.mktemp("demo")

    def again():
        run_local(demo.load(folder, gpus=0, seeds=1, trials=1).jobs, folder)

    again()
    return folder, again


@pytest.mark.slow
def test_the_readme_shows_the_numbers_that_the_demo_gives(demonstrated):
    """One run of each row lies where the README's spread lets one more lie (level 0.1 %).

    Each on its own processor: rounding alone makes another run of the same seed.
    """
    records = results.collect([demonstrated[0] / "transfer"])
    measured = {each.method: each.metrics["sem_seg/mIoU"] for each in records}
    assert all(each.mini and each.protocol == "linear_semseg" for each in records)
    shown = readme_table()
    assert measured.keys() == shown.keys()
    freedom = sum(n - 1 for _, _, n in shown.values())
    pooled = math.sqrt(sum((n - 1) * std**2 for _, std, n in shown.values()) / freedom)
    for method, (mean, _, n) in shown.items():
        allowed = stats.t.ppf(0.9995, freedom) * pooled * math.sqrt(1 + 1 / n)
        assert measured[method] == pytest.approx(mean, abs=allowed), (method, allowed)
    assert measured["simclr"] > max(measured["random"], measured["random_bn"])


@pytest.mark.slow
def test_the_whole_way_ends_in_a_page_and_is_not_run_twice(demonstrated):
    folder, again = demonstrated
    (detector,) = results.collect([folder / "detector"])
    assert detector.protocol == "coco_mask_fpn_1x" and detector.method == "simclr"
    table = (folder / "table.md").read_text()
    assert table.count("\n| ") == 5 and "not comparable with published numbers" in table
    page = (folder / "report.html").read_text()
    assert "linear_semseg" in page and "coco_mask_fpn_1x" in page
    for name in ("detections.png", "views_simclr/000003.png"):
        assert (folder / "pictures" / name).stat().st_size > 50_000

    of_the_last_run = (".lock", "graph.json")
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if path.name not in of_the_last_run]
    before = {path: path.stat().st_mtime_ns for path in files}
    again()  # what is finished is found by what is there now
    assert {path: path.stat().st_mtime_ns for path in files} == before
