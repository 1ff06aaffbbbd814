"""Pipelines on this machine: kill −9 at any moment, disks without locks, what status says of it."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import densessl as front_door
from densessl.core.lock import is_held
from densessl.d2_transfer import results
from densessl.slurm import demo
from densessl.slurm.graph import Job
from densessl.slurm.local import JobFailed, run_local

HERE = Path(__file__).parent
SEEDS = 20
FAST = 3  # of them are among the fast tests
GRAPH = """
jobs:
  - {name: first, module: quick, run: count $dir/first.out, outputs: [$dir/first.out]}
  - {name: left, module: quick, run: count $dir/left.out $dir/first.out, needs: [first],
     outputs: [$dir/left.out]}
  - {name: right, module: quick, run: sum $dir/right.out $dir/first.out, needs: [first],
     outputs: [$dir/right.out]}
  - {name: both, module: quick, run: sum $dir/both.out $dir/left.out $dir/right.out,
     needs: [left, right], outputs: [$dir/both.out]}
"""
WAITS = """
jobs:
  - {name: job, module: quick, run: wait $dir/job.out, outputs: [$dir/job.out]}
  - {name: after, module: quick, run: sum $dir/after.out $dir/job.out, needs: [job],
     outputs: [$dir/after.out]}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the pipelines' files, and the module of their jobs."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(HERE / "quick.py", folder)
    (folder / "graph.yaml").write_text(GRAPH)
    (folder / "waits.yaml").write_text(WAITS)
    return folder


def command(work, *words):
    """Run the command where the pipelines' files lie; for a process of its own."""
    os.chdir(work)
    os.setsid()
    sys.exit(front_door.main([*map(str, words)]))


@pytest.fixture(scope="module")
def start(work):
    """``start(folder)`` begins a pipeline in a process that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["densessl.slurm.reproduce", "torch", "pycocotools.mask"])

    def start(folder, pipeline="graph.yaml"):
        words = ("reproduce", pipeline, "--local", "--jobs", 2, "-o", folder)
        process = context.Process(target=command, args=(work, *words))
        process.start()
        return process

    return start


def run(start, folder) -> int:
    process = start(folder)
    process.join()
    return process.exitcode


def left(folder) -> dict[str, object]:
    """What a run leaves, less its times: the jobs' outputs, and what is noted of them."""
    found: dict[str, object] = {file.name: file.read_text() for file in folder.glob("*.out")}
    for file in (folder / "jobs").glob("*.json"):
        noted = json.loads(file.read_text())
        found[file.name] = [each["sha256"] for each in noted["outputs"].values()]
    return found


@pytest.fixture(scope="module")
def whole(start, changes, tmp_path_factory):
    """What an undisturbed run leaves, and how often its folder was seen to change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start(folder)
    seen = sum(1 for _ in changes(process, folder))
    process.join()
    assert process.exitcode == 0 and len(left(folder)) == 8
    return left(folder), seen


def jobs_of(process: int) -> list[int]:
    """The jobs that a run has started and that live."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        others = [
            each.read_text().split() for each in Path(f"/proc/{process}/task").glob("*/children")
        ]
    except OSError:
        return []
    return [int(each) for group in (children, *others) for each in group]


def kill_somewhere(start, wait_for_change, folder, rng, seen, with_jobs: bool) -> None:
    """Kill a run −9 at a random one of the moments of its life, its jobs with it or not."""
    process = start(folder)
    at, delay = rng.randrange(seen), rng.choice([0, 0.001, 0.01]) * rng.random()
    wait_for_change(process, folder, at, delay)
    jobs = jobs_of(process.pid)
    process.kill()
    process.join()
    for job in jobs if with_jobs else ():
        with suppress(ProcessLookupError):
            os.kill(job, signal.SIGKILL)


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_a_killed_pipeline_resumes_to_what_an_undisturbed_one_leaves(
    start, wait_for_change, whole, until, tmp_path, seed
):
    rng = random.Random(seed)
    expected, seen = whole
    folder = tmp_path / "run"
    for kill in range(1 + seed % 3):
        kill_somewhere(start, wait_for_change, folder, rng, seen, with_jobs=bool((seed + kill) % 2))
        # a job that a killed run left behind keeps the folder until it has ended
        until(lambda: not is_held(folder / ".lock"), "the folder is free")
    assert run(start, folder) == 0
    assert left(folder) == expected
    assert not list(folder.rglob("*.partial"))
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.out")}
    assert run(start, folder) == 0  # and nothing of it is run again
    assert {file: file.stat().st_mtime_ns for file in folder.glob("*.out")} == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_a_stop_while_a_job_runs_is_75_and_the_same_command_resumes(
    start, densessl, until, work, tmp_path, name
):
    folder = tmp_path / "run"
    process = start(folder, "waits.yaml")
    until((folder / "job.begun").exists, "the job")
    os.kill(process.pid, getattr(signal, name))
    process.join()
    assert process.exitcode == 75
    said = states(densessl, folder)
    assert (said["job"]["state"], said["after"]["state"]) == ("stopped", "waiting")
    assert not is_held(folder / ".lock") and not list(folder.rglob("*.partial"))
    (folder / "job.go").touch()
    densessl("reproduce", "waits.yaml", "--local", "-o", folder, cwd=work)
    assert {row["state"] for row in states(densessl, folder).values()} == {"done"}


SMALL = {
    "scenes": {"train": 16, "val": 4},
    "pretrain": ("SOLVER.MAX_STEPS", "4", "SOLVER.BATCH_SIZE", "8", "CHECKPOINT.STEPS", "2"),
}


STAGES = {  # jobs of the demo: kills, at most how many seconds after it began, where it writes
    "scenes": (7, 4.0, "scenes"),
    "pretrain-simclr": (7, 12.0, "pretrain"),
    "convert-simclr": (6, 8.0, "weights"),
}


def demonstrate(folder, stages=STAGES):
    """The command, small, as far as the ``stages``; for a process of its own."""
    os.setsid()
    load = demo.load

    def small(*args, **changes):
        found = load(*args, **changes, seeds=1, trials=1, **SMALL)
        return replace(found, jobs=tuple(job for job in found.jobs if job.name in stages))

    demo.load = small
    sys.exit(front_door.main(["demo", "-o", str(folder)]))


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGUSR1", marks=pytest.mark.slow)])
def test_a_stop_of_the_demo_is_75_and_the_same_command_resumes(until, tmp_path, name):
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=demonstrate, args=(tmp_path / "demo", ["scenes"]))
    process.start()
    log = tmp_path / "demo" / "logs" / "scenes.txt"
    until(lambda: log.exists() and jobs_of(process.pid), "the scenes")
    os.kill(process.pid, getattr(signal, name))
    process.join()
    assert process.exitcode == 75
    assert not (tmp_path / "demo" / "jobs" / "scenes.json").exists()
    process = context.Process(target=demonstrate, args=(tmp_path / "demo", ["scenes"]))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "demo" / "jobs" / "scenes.json").exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_the_demo_killed_twenty_times_resumes_to_the_same_weights(
    until, different, tmp_path, monkeypatch
):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rng, context = random.Random(0), multiprocessing.get_context("forkserver")

    def start(folder):
        process = context.Process(target=demonstrate, args=(folder,))
        process.start()
        return process

    def kill_somewhere(folder, stage, most, made) -> bool:
        """Kill it −9 with its jobs somewhere in a stage; False where that had ended before."""
        process, done = start(folder), folder / "jobs" / f"{stage}.json"
        until((folder / "logs" / f"{stage}.txt").exists, stage)
        time.sleep(most * rng.random())
        jobs, ended = jobs_of(process.pid), done.exists()
        process.kill()
        for job in jobs:
            with suppress(ProcessLookupError):
                os.kill(job, signal.SIGKILL)
        process.join()
        until(lambda: not is_held(folder / ".lock"), "the folder is free")
        if ended:
            done.unlink()
            shutil.rmtree(folder / made)
        return not ended

    for stage, (kills, most, made) in STAGES.items():
        while kills:
            kills -= kill_somewhere(tmp_path / "killed", stage, most, made)
    for folder in ("killed", "whole"):
        process = start(tmp_path / folder)
        process.join()
        assert process.exitcode == 0
    one, other = (
        torch.load(tmp_path / folder / "pretrain/simclr/backbone_final.pth", weights_only=True)
        for folder in ("killed", "whole")
    )
    assert different(one["backbone"], other["backbone"]) == []
    assert (tmp_path / "killed" / "weights" / "simclr.pkl").exists()
    assert not list(tmp_path.rglob("*.partial"))


def begin(work, folder, env=None) -> subprocess.Popen:
    """The pipeline whose first job waits to be let go."""
    words = ["reproduce", "waits.yaml", "--local", "-o", str(folder)]
    run = [sys.executable, "-m", "densessl", *words]
    return subprocess.Popen(run, cwd=work, env=env, stdout=-3, stderr=-3)


def states(densessl, folder, **options) -> dict[str, dict]:
    lines = densessl("status", folder, "--json", **options).splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


@pytest.fixture
def child_of(until):
    """``child_of(process)``: the job that a run waits for, once there is one."""

    def child(process) -> int:
        until(lambda: jobs_of(process.pid), "a job")
        return jobs_of(process.pid)[0]

    return child


def test_without_locks_a_pipeline_runs_is_killed_resumes_and_has_a_status(
    work, densessl, bad_libc, until, child_of, tmp_path
):
    env, folder = bad_libc(NO_LOCKS=1), tmp_path / "run"
    process = begin(work, folder, env)
    until((folder / "job.begun").exists, "the job")
    said = states(densessl, folder, env=env)
    assert (said["job"]["state"], said["after"]["state"]) == ("running", "waiting")
    job = child_of(process)
    process.kill()
    process.wait()
    os.kill(job, signal.SIGKILL)
    said = states(densessl, folder, env=env)
    assert said["job"]["state"] == "stopped" and "killed" in said["job"]["says"]
    (folder / "job.go").touch()
    densessl("reproduce", "waits.yaml", "--local", "-o", folder, env=env, cwd=work)
    assert {row["state"] for row in states(densessl, folder, env=env).values()} == {"done"}
    assert not is_held(folder / ".lock")


DEMO = """
import sys
from tests.faults.test_pipelines import demonstrate
demonstrate(sys.argv[1], ["scenes"])
"""


@pytest.mark.slow
def test_without_locks_the_demo_runs(densessl, bad_libc, tmp_path):
    env, folder = bad_libc(NO_LOCKS=1), tmp_path / "demo"
    subprocess.run([sys.executable, "-c", DEMO, folder], check=True, cwd=HERE.parents[1], env=env)
    assert states(densessl, folder, env=env)["scenes"]["state"] == "done"


def test_status_says_how_a_job_was_killed(work, densessl, until, child_of, tmp_path):
    folder = tmp_path / "run"
    process = begin(work, folder)
    until((folder / "job.begun").exists, "the job")
    with open(folder / "logs" / "job.txt", "a") as log:
        log.write("10:00:00 INFO pretrain 20/400, 2 h 10 min left  loss 7.1\n")
    os.kill(child_of(process), signal.SIGKILL)
    assert process.wait() == 137
    said = states(densessl, folder)
    assert said["job"]["state"] == "failed" and "SIGKILL" in said["job"]["says"]
    assert "20/400" not in said["job"]["says"]
    assert said["after"]["state"] == "not run"


MEMORY = Path("/sys/fs/cgroup/memory")
GREEDY = """
import pathlib, os, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
print("reading", flush=True)
hold = [bytearray(os.urandom(1 << 20)) for _ in range(200)]
"""


@pytest.fixture
def small_memory():
    """A control group with 40 MB of memory, and no swap."""
    group = MEMORY / f"densessl-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups of memory cannot be made here")
    try:
        (group / "memory.limit_in_bytes").write_text(str(40 << 20))
        (group / "memory.swappiness").write_text("0")
        yield group
    finally:
        group.rmdir()


def test_status_says_that_the_kernel_killed_for_lack_of_memory(
    densessl, small_memory, work, tmp_path
):
    (work / "greedy.py").write_text(GREEDY)
    (work / "greedy.yaml").write_text(
        f"jobs:\n  - {{name: job, module: greedy, run: {small_memory}}}\n"
    )
    folder = tmp_path / "run"
    words = ("reproduce", "greedy.yaml", "--local", "-o", folder)
    said = densessl(*words, code=137, cwd=work)
    assert "memory" in said and "SIGKILL" in said
    assert "memory" in states(densessl, folder)["job"]["says"]


def test_what_a_job_did_not_write_is_said(densessl, work, tmp_path):
    (work / "nothing.yaml").write_text(
        "jobs:\n  - {name: job, module: this, run: '', outputs: [$dir/never.out]}\n"
    )
    folder = tmp_path / "run"
    densessl("reproduce", "nothing.yaml", "--local", "-o", folder, code=1, cwd=work)
    assert "never.out" in states(densessl, folder)["job"]["says"]


def test_escapes_in_a_jobs_log_are_shown_and_not_obeyed(densessl, work, tmp_path):
    (work / "steers.py").write_text("import sys; sys.exit('no \\x1b]0;title\\x07 \\x9b2J weights')")
    (work / "steers.yaml").write_text("jobs:\n  - {name: job, module: steers, run: ''}\n")
    folder = tmp_path / "run"
    said = densessl("reproduce", "steers.yaml", "--local", "-o", folder, code=1, cwd=work)
    said += densessl("status", folder)
    assert not {"\x1b", "\x07", "\x9b"} & set(said)
    assert said.count(r"\x1b]0;title") == 2


@pytest.mark.parametrize("verb", ["status", "cancel", "reproduce", "demo"])
def test_a_folder_name_of_300_letters_is_one_line(densessl, work, tmp_path, verb):
    folder = tmp_path / ("a" * 300)
    words = {"reproduce": ("graph.yaml", "--local", "-o"), "demo": ("-o",)}.get(verb, ())
    said = densessl(verb, *words, folder, code=2, cwd=work)
    assert len(said.splitlines()) == 1 and "name too long" in said


def test_a_job_whose_files_would_have_too_long_names_is_refused(densessl, work, tmp_path):
    name = "a" * 250
    (work / "long.yaml").write_text(f"jobs:\n  - {{name: {name}, module: this, run: ''}}\n")
    said = densessl("reproduce", "long.yaml", "--local", "-o", tmp_path / "x", code=2, cwd=work)
    assert "250 bytes" in said


def test_folders_that_begin_with_a_dash_are_folders(densessl, work):
    densessl("reproduce", "graph.yaml", "--local", "-o=-run", cwd=work)
    assert (work / "-run" / "both.out").exists()
    said = densessl("status", "--json", "--", "-run", cwd=work).splitlines()
    assert {json.loads(line)["state"] for line in said} == {"done"}
    assert demo.folder_of("-demo").is_absolute() and demo.folder_of("demo") == Path("demo")


COPY = """
import pathlib, shutil, sys
source, target = map(pathlib.Path, sys.argv[1:])
with open(target.with_name("ran"), "a") as stream:
    stream.write(f"{target.name}\\n")
shutil.copytree(source, target)
"""


def test_of_five_trials_one_fails_the_table_has_four_and_only_that_one_runs_again(
    densessl, tmp_path
):
    config = {"SOLVER": {"BASE_LR": 0.02}}
    records, folder = tmp_path / "records", tmp_path / "run"
    for k in range(1, 6):
        values = {"method": "moco", "weights": {"path": "moco", "sha256": "aa" * 32}}
        values |= {"pretrain": {}, "protocol": "voc_det_c4", "variant": "", "seed": k}
        values |= {"metrics": {"bbox/AP": 50.0 + k, "bbox/AP50": 80.0, "bbox/AP75": 60.0}}
        values |= {"config_sha256": results.config_fingerprint(config), "versions": {}}
        times = {"started": results.now(), "finished": results.now()}
        results.save(records / f"trial_{k}", results.Record(**values, **times))
        (records / f"trial_{k}" / "config.yaml").write_text(yaml.safe_dump(config))
    (records / "trial_3").rename(records / "not yet")
    trials = [
        Job(
            f"trial-{k}",
            (COPY, str(records / f"trial_{k}"), str(folder / "voc" / f"trial_{k}")),
            outputs=(folder / "voc" / f"trial_{k}" / "result.json",),
            program=(sys.executable, "-c"),
            array="trial",
        )
        for k in range(1, 6)
    ]
    (folder / "voc").mkdir(parents=True)
    words = ("table", str(folder / "voc"), "-o", str(folder / "table.md"))
    names = tuple(job.name for job in trials)
    table = Job("table", words, outputs=(folder / "table.md",), after=names)
    with pytest.raises(JobFailed, match="'trial-3' failed"):
        run_local([*trials, table], folder)
    assert re.search(r"\| moco .*\| 4 \|", (folder / "table.md").read_text())
    said = states(densessl, folder)
    assert said["trial-3"]["state"] == "failed" and said["table"]["state"] == "done"
    (records / "not yet").rename(records / "trial_3")
    (folder / "voc" / "ran").unlink()
    run_local([*trials, table], folder)
    assert (folder / "voc" / "ran").read_text() == "trial_3\n"
    assert re.search(r"\| moco .*\| 5 \|", (folder / "table.md").read_text())
