"""What runs on a node, in processes of its own; SLURM's commands are small programs on PATH."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from densessl.slurm import state
from densessl.slurm.graph import Finished, Job, Resources
from densessl.slurm.lock import Owner
from densessl.slurm.state import State, Submission
from densessl.slurm.task import Task

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds after which a test gives up, also on a busy machine
CALL = """
import pickle, sys
with open(sys.argv[1], "rb") as stream:
    task = pickle.load(stream)
task()
"""
# Saves and ends with 75 when it is asked to stop, and resumes from there.
POLITE = """
import os, pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
saved = pathlib.Path(sys.argv[1], 'saved')
print('begins', flush=True)
pathlib.Path(sys.argv[1], 'begun').touch()
while not asked and not saved.exists():
    time.sleep(0.05)
if asked:
    saved.touch()
    sys.exit(75)
pathlib.Path(sys.argv[1], 'out').touch()
"""


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A machine of a cluster: ``scontrol`` and ``squeue`` note their words in ``said``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("scontrol", "squeue"):
        file = programs / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/said\ncat {tmp_path}/{name}\n')
        file.chmod(0o755)
        (tmp_path / name).write_text("")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Node(tmp_path)


class Node:
    def __init__(self, folder: Path):
        self.folder = folder

    def job(self, name, code, *arguments, **options) -> Job:
        return Job(name, (code, *map(str, arguments)), program=(sys.executable, "-c"), **options)

    def polite(self) -> Job:
        return self.job("job", POLITE, self.folder, outputs=(self.folder / "out",))

    def start(self, *jobs, rank=0, processes=1, nodes=1, restarts=0, **options) -> subprocess.Popen:
        """A process of the last of ``jobs``, as Submitit starts it in SLURM's job 7."""
        import pickle

        values = {"submitted": "2026-01-01T00:00:00+00:00", "python": sys.executable} | options
        task = Task(str(self.folder), jobs[-1].name, jobs, **values)
        file = self.folder / f"task.{rank}"
        file.write_bytes(pickle.dumps(task))
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": str(processes),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "gpu[01-02]" if nodes == 2 else "localhost",
            "SLURM_NODEID": str(rank if nodes > 1 else 0),
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(0 if nodes > 1 else rank),
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = [sys.executable, "-c", CALL, str(file)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def start_two(self, code, *arguments, nodes=1, **options) -> None:
        """A job of two processes, the first of which ends after the second has begun."""
        last = repr(str(self.folder / "logs" / "job.1.txt"))
        code += f"\nimport os, time\nwhile not os.path.exists({last}): time.sleep(0.05)"
        job = self.job("job", code, *arguments, **options)
        both = [self.start(job, rank=rank, processes=2, nodes=nodes) for rank in range(2)]
        assert [end(process) for process in both] == [0, 0]

    def run(self, *jobs, **options) -> int:
        """Its exit code."""
        return end(self.start(*jobs, **options))

    def begun(self) -> None:
        """Wait until the polite job runs."""
        wait(self.folder / "begun")
        (self.folder / "begun").unlink()

    def state(self, name="job") -> State:
        return state.read_state(self.folder, name)

    def log(self, name="job") -> str:
        return (self.folder / "logs" / f"{name}.txt").read_text()

    def said(self) -> list[str]:
        """What SLURM's commands were told."""
        file = self.folder / "said"
        return file.read_text().splitlines() if file.exists() else []


def wait(file: Path) -> None:
    wait_until(file.exists, f"{file} is there")


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"never: {what}")
        time.sleep(0.05)


def end(process: subprocess.Popen) -> int:
    _, process.said = process.communicate(timeout=PATIENCE)
    return process.returncode


def test_a_job_runs_once_and_is_then_finished(node):
    output = node.folder / "out"
    job = node.job(
        "job", "import sys; open(sys.argv[1], 'a').write('x')", output, outputs=(output,)
    )
    assert node.run(job) == 0
    assert node.state().state == "done" and node.state().slurm_job == "7"
    assert Finished([job], node.folder).seconds("job") is not None
    assert "SLURM job 7: done" in node.log()
    assert node.run(job) == 0
    assert output.read_text() == "x"
    assert not (node.folder / "state" / "job.lock").exists()


@pytest.mark.parametrize(
    ("code", "exit_code", "why"),
    [
        ("import sys; print('reading'); sys.exit('no such weights')", 1, "exit code 1"),
        (
            "import os; print('no such weights', flush=True); os.kill(os.getpid(), 9)",
            137,
            "SIGKILL",
        ),
        ("print('no such weights')", 1, "did not write .*out"),
    ],
)
def test_a_failure_leaves_its_last_lines(node, code, exit_code, why):
    outputs = (node.folder / "out",)
    assert node.run(node.job("job", code, outputs=outputs)) == exit_code
    said = node.state()
    assert (said.state, said.code) == ("failed", exit_code)
    assert re.search(why, said.why)
    assert said.error.splitlines()[-1] == "no such weights"
    assert Finished([node.job("job", code, outputs=outputs)], node.folder).seconds("job") is None


def test_asked_before_the_limit_it_saves_is_queued_again_and_goes_on(node):
    process = node.start(node.polite())
    node.begun()
    process.send_signal(signal.SIGUSR2)
    assert end(process) == 75
    said = node.state()
    assert (said.state, said.requeues) == ("requeued", 1)
    assert node.said() == ["scontrol requeue 7"]
    assert node.run(node.polite(), restarts=1) == 0
    said = node.state()
    assert (said.state, said.requeues, said.restarts) == ("done", 1, 0)
    assert node.log().count("begins\n") == 2


def test_a_restart_of_slurms_own_is_counted_apart(node):
    state.write_state(node.folder, "job", State("running", "7", requeues=2))
    (node.folder / "saved").touch()
    assert node.run(node.polite(), restarts=3) == 0
    said = node.state()
    assert (said.state, said.requeues, said.restarts) == ("done", 2, 1)


def test_a_new_submission_counts_from_what_it_was_given(node):
    state.write_state(node.folder, "job", State("failed", "6", requeues=100, restarts=4))
    (node.folder / "saved").touch()
    assert node.run(node.polite(), requeues=3) == 0
    assert (node.state().requeues, node.state().restarts) == (3, 0)


def test_a_command_that_does_not_stop_is_killed_in_time_and_queued_again(node):
    code = "import signal; signal.signal(15, 1); open('begun', 'w'); import time; time.sleep(900)"
    code = code.replace("'begun'", repr(str(node.folder / "begun")))
    process = node.start(node.job("job", code), signal_delay=2)
    node.begun()
    process.send_signal(signal.SIGUSR2)
    assert end(process) == 75
    assert node.state().state == "requeued"


def test_a_job_that_comes_back_too_often_has_failed(node):
    process = node.start(node.polite(), max_requeues=0)
    node.begun()
    process.send_signal(signal.SIGUSR2)
    assert end(process) == 75
    said = node.state()
    assert (said.state, said.requeues) == ("failed", 0)
    assert "stopped 1 times" in said.why and "max_requeues" in said.why
    assert node.said() == []


@pytest.mark.parametrize("number", [signal.SIGUSR2, None])
def test_a_cancelled_job_is_not_queued_again_and_does_not_begin_again(node, number):
    process = node.start(node.polite())
    node.begun()
    state.cancel(node.folder)
    if number:
        process.send_signal(number)
        assert end(process) == 75
    else:  # it was just being queued again
        child = child_of(process)
        process.kill()
        os.kill(child, signal.SIGKILL)
        end(process)
        assert node.run(node.polite(), restarts=1) == 75
    assert node.state().state == "stopped" and "'densessl cancel'" in node.log()
    assert "scontrol" not in " ".join(node.said())


def child_of(process) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


@pytest.mark.parametrize(
    ("slurms_word", "expected"),
    [("", "stopped"), ("7|COMPLETING|None|N/A", "stopped"), ("7|RUNNING|None|N/A", "requeued")],
)
def test_a_sigterm_is_a_cancellation_or_a_preemption_as_slurm_says(node, slurms_word, expected):
    (node.folder / "squeue").write_text(slurms_word)
    process = node.start(node.polite())
    node.begun()
    process.send_signal(signal.SIGTERM)
    assert end(process) == 75
    assert node.state().state == expected
    assert ("scontrol requeue 7" in node.said()) == (expected == "requeued")


def test_a_command_dies_with_its_supervisor(node):
    process = node.start(node.polite())
    node.begun()
    child = child_of(process)
    process.kill()
    end(process)
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "it is gone")


def test_when_slurm_ends_the_others_of_a_process_that_died_it_is_a_failure(node):
    (node.folder / "squeue").write_text("7|RUNNING|None|N/A")
    code = "import sys, time; open(sys.argv[1] + '/begun', 'w'); time.sleep(900)"
    job = node.job("job", code, node.folder, resources=Resources(1, 2, "gpu"))
    process = node.start(job, processes=2)
    node.begun()
    process.send_signal(signal.SIGTERM)
    assert end(process) == 143
    assert node.state().state == "failed" and "another process" in node.state().why


def test_a_sigterm_before_the_clusters_own_signal_counts_less(node):
    saves = """    saved.with_name('saves').touch()
    while not saved.with_name('go').exists(): time.sleep(0.05)
    saved.touch()"""
    code = POLITE.replace("    saved.touch()", saves)
    process = node.start(node.job("job", code, node.folder, outputs=(node.folder / "out",)))
    node.begun()
    process.send_signal(signal.SIGTERM)
    wait(node.folder / "saves")
    process.send_signal(signal.SIGUSR2)
    (node.folder / "go").touch()
    assert end(process) == 75
    assert node.state().state == "requeued"


def test_a_command_that_the_clusters_signal_reaches_lives_on(node):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')"
    assert node.run(node.job("job", code)) == 0
    assert "alive" in node.log()


def test_what_was_submitted_again_under_another_number_does_nothing(node):
    state.write_submission(node.folder, "job", Submission("8", "2026-01-01T00:00:01+00:00"))
    assert node.run(node.polite()) == 1
    assert node.state() is None and not (node.folder / "logs").exists()


def test_of_several_processes_the_first_failure_is_told(node):
    fails = "import os, sys, time; r = os.environ['RANK']; r == '0' and time.sleep(900); "
    fails += "print('process', r); sys.exit('disk full')"
    job = node.job("job", fails, resources=Resources(1, 2, "gpu"))
    first, second = (node.start(job, rank=rank, processes=2) for rank in range(2))
    wait(node.folder / "state" / "ends" / "job" / "7.0")
    wait(node.folder / "logs" / "job.txt")
    first.send_signal(signal.SIGTERM)  # as srun does to the others
    assert end(second) == 1
    assert end(first) == 75
    said = node.state()
    assert (said.state, said.code) == ("failed", 1)
    assert said.why == "process 1: exit code 1"
    assert said.error.splitlines() == ["process 1", "disk full"]


def test_processes_know_each_other(node):
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    node.start_two(code, env={"DETECTRON2_DATASETS": "x"}, resources=Resources(1, 2, "gpu"))
    logs = [node.log("job"), node.log("job.1")]
    values = [json.loads(next(x for x in log.splitlines() if x[0] == "{")) for log in logs]
    for rank, value in enumerate(values):
        assert (value["RANK"], value["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (value["WORLD_SIZE"], value["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert value["DETECTRON2_DATASETS"] == "x" and value["MASTER_ADDR"] == "localhost"
    assert values[0]["MASTER_PORT"] == values[1]["MASTER_PORT"]


def test_machines_of_a_command_that_starts_its_own_processes_know_each_other(node):
    code = "import sys; print(sys.argv[1:])"
    node.start_two(code, "w.pkl", nodes=2, resources=Resources(2, 8, "node"))
    for rank, name in enumerate(("job", "job.1")):
        words = node.log(name)
        expected = rf"'--num-machines', '2', '--machine-rank', '{rank}', '--dist-url', "
        assert re.search(expected + r"'tcp://gpu01:\d+', 'w.pkl'", words)


def test_a_jobs_inputs_may_appear_late(node):
    needed = node.folder / "weights"
    first = node.job("first", "", outputs=(needed,))
    read = node.job("job", "import sys; print(open(sys.argv[1]).read())", needed, needs=("first",))
    process = node.start(first, read)
    wait(node.folder / "state" / "job.json")
    needed.write_text("here")
    Finished([first], node.folder).mark("first", 1.0)
    assert end(process) == 0 and "here" in node.log()


def looks_again(guard: Path) -> None:
    """Wait until a process has looked at the lock twice: each look writes the lock's guard."""
    for _ in range(2):
        before = guard.stat().st_mtime_ns if guard.exists() else 0
        wait_until(lambda b=before: guard.exists() and guard.stat().st_mtime_ns > b, "a look")


@pytest.mark.parametrize("gone", [True, False])
def test_a_lock_is_taken_over_from_a_run_that_is_gone(node, gone):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = asdict(Owner.me("6")) | {"process": other.pid}
    owner["began"] = int(Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19])
    lock = node.folder / "state" / "job.lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps(owner))
    if gone:
        other.communicate()
    (node.folder / "saved").touch()
    process = node.start(node.polite())
    if not gone:
        looks_again(lock.with_name(".job.lock.guard"))
        assert process.poll() is None and node.state() is None  # it waits
        other.communicate()
    assert end(process) == 0
    assert node.state().state == "done"


def test_a_lock_of_another_machine_is_slurms_to_judge(node):
    lock = node.folder / "state" / "job.lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"slurm_job": "6", "host": "gone", "process": 1, "began": 1}))
    (node.folder / "squeue").write_text("6|RUNNING|None|N/A\n")
    (node.folder / "saved").touch()
    process = node.start(node.polite())
    wait_until(lambda: len(node.said()) >= 2, "SLURM is asked again")
    assert process.poll() is None
    (node.folder / "squeue").write_text("")
    assert end(process) == 0
    assert node.state().state == "done"


FILLS = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
try:
    with open(folder / 'large', 'wb', buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
except OSError as error:
    sys.exit(f'no checkpoint: {error}')
(folder / 'out').touch()
"""


def test_a_full_disk_ends_the_job_and_once_there_is_room_it_runs(node, small_disk):
    there = Node(small_disk)
    job = there.job("job", FILLS, small_disk, outputs=(small_disk / "out",))
    task = there.start(job)
    said = task.communicate()[1]
    assert task.returncode == 1 and "failed: process 0: exit code 1" in said
    assert "could not be written" in said  # the state; the folder still says that the job runs
    assert there.state().state == "running" and not there.state().error
    task = there.start(job)  # SLURM starts it again, and not even its log can be written
    said = task.communicate()[1]
    assert task.returncode == 1 and "failed: process 0" in said and "Traceback" not in said
    (small_disk / "large").unlink()
    again = there.job("job", "import sys; open(sys.argv[1], 'w')", small_disk / "out")
    assert there.run(again) == 0
    assert there.state().state == "done"
