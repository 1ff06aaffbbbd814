"""The graph of jobs on one machine, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from densessl.core.errors import InputError, StoppedEarly
from densessl.core.files import read_json
from densessl.core.lock import is_held
from densessl.slurm import board
from densessl.slurm import graph as slurm_graph
from densessl.slurm.graph import Finished, Job, in_order
from densessl.slurm.local import JobFailed, run_local

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds after which a test gives up, also on a busy machine
PYTHON = (sys.executable, "-c")


def python(name, code, *needs, outputs=(), **options):
    """A job that runs a line of Python."""
    program = (sys.executable, "-c")
    return Job(name, (code,), needs, tuple(outputs), program=program, **options)


def noting(folder, name, *needs, **options):
    """A job that writes its name at the end of a file."""
    code = f"open({str(folder / 'ran')!r}, 'a').write('{name} ')"
    return python(name, code, *needs, **options)


def ran(folder):
    return (folder / "ran").read_text().split() if (folder / "ran").exists() else []


def test_jobs_run_after_those_they_need_and_else_in_the_order_given(tmp_path):
    jobs = [
        noting(tmp_path, "table", "a", "b"),
        noting(tmp_path, "b", "scenes"),
        noting(tmp_path, "scenes"),
        noting(tmp_path, "a", "scenes"),
    ]
    run_local(jobs, tmp_path)
    assert ran(tmp_path) == ["scenes", "b", "a", "table"]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([Job("a", (), ("b",)), Job("b", (), ("a",))], "wait for each other"),
        ([Job("a", (), ("c",))], "needs 'c'"),
        ([Job("a", ()), Job("a", ())], "one name"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(jobs, message):
    with pytest.raises(ValueError, match=message):
        in_order(jobs)


def test_the_order_is_that_of_the_first_job_that_is_ready():
    random = np.random.default_rng(0)
    for _ in range(20):
        ranks = random.permutation(30)
        needs = [[k for k in range(30) if ranks[k] < ranks[n]] for n in range(30)]
        chosen = [random.permutation(each)[:3] for each in needs]
        jobs = [Job(f"{n}", (), tuple(map(str, each))) for n, each in enumerate(chosen)]
        expected: list[Job] = []
        while len(expected) < len(jobs):
            names = {job.name for job in expected}
            ready = (job for job in jobs if job.name not in names and names >= {*job.needs})
            expected.append(next(ready))
        assert in_order(jobs) == expected


def test_ordering_looks_at_each_job_a_few_times_whatever_their_number(monkeypatch):
    reads = Counter()
    before = Job.before.fget

    def counted(job):
        reads[job.name] += 1
        return before(job)

    monkeypatch.setattr(Job, "before", property(counted))
    jobs = [Job(f"{n}", (), (f"{n + 1}",) if n < 299 else ()) for n in range(300)]
    assert in_order(jobs) == jobs[::-1]
    assert max(reads.values()) <= 4


def test_a_look_at_all_jobs_reads_the_note_of_each_once(tmp_path, monkeypatch):
    layers = [[f"{layer}-{k}" for k in range(3)] for layer in range(12)]
    jobs = [
        Job(name, (name,), tuple(layers[number - 1]) if number else (), (tmp_path / name,))
        for number, layer in enumerate(layers)
        for name in layer
    ]
    finished = Finished(jobs, tmp_path)
    for job in jobs:
        (tmp_path / job.name).write_text(job.name)
        finished.mark(job.name, 2.0)
    reads = Counter()

    def counted(path):
        reads[path.name] += 1
        return read_json(path)

    monkeypatch.setattr(slurm_graph, "read_json", counted)
    assert finished.of_all() == dict.fromkeys((job.name for job in jobs), 2.0)
    assert set(reads.values()) == {1} and len(reads) == len(jobs)
    reads.clear()
    assert finished.seconds(jobs[-1].name) == 2.0  # three jobs before it, which share theirs
    assert set(reads.values()) == {1}
    (tmp_path / layers[3][1]).write_text("another")  # of which all later ones were made
    assert finished.of_all().keys() == {name for layer in layers[:4] for name in layer}


def test_a_thousand_jobs_in_a_row_are_known(tmp_path):
    jobs = [Job(f"{n}", (f"{n}",), (f"{n - 1}",) if n else ()) for n in range(1000)]
    finished = Finished(jobs, tmp_path)
    finished.mark("0", 2.0)
    finished.mark("999", 3.0)
    assert finished.seconds("999") == 3.0 and finished.seconds("998") is None


def test_a_board_of_many_jobs_does_not_spend_its_time_on_drawing(monkeypatch):
    clock, drawn = [0.0], []

    class Screen:
        def start(self):
            pass

        stop = start

        def update(self, table, refresh):
            clock[0] += 0.5  # that drawing takes
            drawn.append(table.row_count)

    monkeypatch.setattr(board, "_live_table", Screen)
    monkeypatch.setattr(board.time, "monotonic", lambda: clock[0])
    names = [f"{n}" for n in range(1000)]
    with board.JobBoard(names) as shown:
        for name in names:
            clock[0] += 0.01
            shown.set(name, "done before", 1.0)
    assert drawn == [1000] * 4  # every five of eleven seconds, and at the end


def test_a_job_is_a_verb_of_densessl(tmp_path):
    run_local([Job("usage", ("--help",))], tmp_path)
    log = (tmp_path / "logs" / "usage.txt").read_text()
    assert "usage: densessl VERB" in log and "-m densessl --help" in log.splitlines()[0]


def test_a_finished_job_is_not_run_again_until_something_of_it_changes(tmp_path):
    output = tmp_path / "weights"

    def graph(env=None, text="good"):
        note = f"open({str(tmp_path / 'ran')!r}, 'a').write('first ')"
        code = f"open({str(output)!r}, 'w').write('{text}'); {note}"
        first = python("first", code, outputs=[output], env=env or {})
        return [first, noting(tmp_path, "second", "first")]

    run_local(graph(), tmp_path)
    run_local(graph(), tmp_path)
    assert ran(tmp_path) == ["first", "second"]
    output.unlink()  # an output was deleted: that job again, and only that one
    run_local(graph(), tmp_path)
    assert ran(tmp_path) == ["first", "second", "first"]
    run_local(graph(env={"DETECTRON2_DATASETS": "x"}), tmp_path)  # changed, with what it leaves
    assert ran(tmp_path)[3:] == ["first"]
    run_local(graph(text="better"), tmp_path)  # it leaves something else: those after it, too
    assert ran(tmp_path)[4:] == ["first", "second"]
    output.write_text("foreign")  # by somebody else
    run_local(graph(text="better"), tmp_path)
    assert ran(tmp_path)[6:] == ["second"]


def test_a_failed_job_stops_those_that_need_it_and_shows_its_log(tmp_path):
    jobs = [
        python("bad", "print('reading'); raise SystemExit('no such weights')"),
        noting(tmp_path, "after", "bad"),
        noting(tmp_path, "long_after", "after"),
        noting(tmp_path, "other"),
    ]
    with pytest.raises(JobFailed) as error:
        run_local(jobs, tmp_path)
    assert ran(tmp_path) == ["other"]
    assert error.value.exit_code == 1
    assert "'bad' failed" in str(error.value) and "no such weights" in str(error.value)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("pass", 1)],
)
def test_the_exit_code_is_the_jobs(tmp_path, code, exit_code):
    outputs = [tmp_path / "never"] if code == "pass" else []
    with pytest.raises(JobFailed) as error:
        run_local([python("bad", code, outputs=outputs)], tmp_path)
    assert error.value.exit_code == exit_code
    assert ("did not write" in str(error.value)) == (code == "pass")


def test_content_decides_where_it_is_given(tmp_path):
    def graph(content, *options):
        code = f"open({str(tmp_path / 'ran')!r}, 'a').write('first ')"
        return [Job("first", (code, *options), content=content, program=(sys.executable, "-c"))]

    run_local(graph(("sum",)), tmp_path)
    run_local(graph(("sum",), "OUTPUT_DIR", "elsewhere"), tmp_path)
    assert ran(tmp_path) == ["first"]
    run_local(graph(("another sum",)), tmp_path)
    assert ran(tmp_path) == ["first", "first"]


def test_a_folder_that_was_moved_is_still_finished(tmp_path):
    def graph(folder):
        code = f"open({str(folder / 'weights')!r}, 'w').write('w')"
        first = Job("first", (code,), outputs=(folder / "weights",), content=("a",), program=PYTHON)
        note = f"open({str(tmp_path / 'ran')!r}, 'a').write('second ')"
        return [first, Job("second", (note,), ("first",), content=("b",), program=PYTHON)]

    run_local(graph(tmp_path / "there"), tmp_path / "there")
    (tmp_path / "there").rename(tmp_path / "here")
    run_local(graph(tmp_path / "here"), tmp_path / "here")
    assert ran(tmp_path) == ["second"]


def test_what_comes_after_a_failed_job_still_runs(tmp_path):
    jobs = [
        python("bad", "raise SystemExit(1)"),
        Job(
            "table", noting(tmp_path, "table").argv, after=("bad",), program=(sys.executable, "-c")
        ),
    ]
    with pytest.raises(JobFailed, match="'bad' failed"):
        run_local(jobs, tmp_path)
    assert ran(tmp_path) == ["table"]


def test_a_failed_job_runs_again(tmp_path):
    code = f"import os, sys; sys.exit(not os.path.exists({str(tmp_path / 'fixed')!r}))"
    with pytest.raises(JobFailed):
        run_local([python("first", code), noting(tmp_path, "second", "first")], tmp_path)
    (tmp_path / "fixed").touch()
    run_local([python("first", code), noting(tmp_path, "second", "first")], tmp_path)
    assert ran(tmp_path) == ["second"]


def test_a_job_that_stopped_early_stops_the_graph(tmp_path):
    jobs = [python("first", "raise SystemExit(75)"), noting(tmp_path, "other")]
    with pytest.raises(StoppedEarly):
        run_local(jobs, tmp_path)
    assert ran(tmp_path) == []


def meeting(folder, name, other):
    """A job that ends once the other one has begun, too."""
    wait = f"while not p.joinpath({other!r}).exists(): time.sleep(0.01)"
    code = f"import pathlib, time; p = pathlib.Path({str(folder)!r}); p.joinpath({name!r}).touch()"
    return python(name, f"{code}\n{wait}")


def test_jobs_side_by_side_start_in_order_and_wait_for_what_they_need(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = f"import os; open({str(tmp_path / 'n')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"
    jobs = [
        meeting(tmp_path, "a", "b"),
        meeting(tmp_path, "b", "a"),
        noting(tmp_path, "c", "a", "b"),
        noting(tmp_path, "d", "c"),
        python("threads", threads, "d"),
    ]
    run_local(jobs, tmp_path, at_once=2)
    assert ran(tmp_path) == ["c", "d"]
    assert int((tmp_path / "n").read_text()) == max(len(os.sched_getaffinity(0)) // 2, 1)


def test_side_by_side_a_job_that_stops_early_stops_the_one_beside_it(tmp_path):
    first = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'on')!r}).exists(): pass"
    beside = (
        f"import pathlib, time; pathlib.Path({str(tmp_path / 'on')!r}).touch(); time.sleep(600)"
    )
    jobs = [
        python("first", f"{first}\nraise SystemExit(75)"),
        python("beside", beside),
        noting(tmp_path, "other"),
    ]
    with pytest.raises(StoppedEarly):
        run_local(jobs, tmp_path, at_once=2)
    assert ran(tmp_path) == []


def test_side_by_side_a_failed_job_stops_only_those_that_need_it(tmp_path):
    jobs = [
        python("bad", "raise SystemExit(3)"),
        noting(tmp_path, "after", "bad"),
        noting(tmp_path, "other"),
    ]
    with pytest.raises(JobFailed, match="'bad' failed"):
        run_local(jobs, tmp_path, at_once=2)
    assert ran(tmp_path) == ["other"]


# A run in a process of its own, with a job that saves where it was when it is asked to stop.
COUNTING = """
import os, pathlib, signal, sys, time
stopped = []
signal.signal(signal.{name}, lambda *_: stopped.append(1))
at = pathlib.Path(sys.argv[1]) / 'at'
step = int(at.read_text()) if at.exists() else 0
print('from step', step)
(at.parent / 'begun').write_text(str(os.getpid()))
while step < 3:
    if stopped:
        time.sleep(0.3)
        at.write_text('2')
        sys.exit(75)
    if step == 2:
        step = 3
    time.sleep(0.05)
"""
DRIVER = """
import sys
from densessl.core.errors import StoppedEarly
from densessl.slurm.graph import Job
from densessl.slurm.local import run_local
program = (sys.executable, sys.argv[2])
jobs = [Job('count', (sys.argv[1],), program=program), Job('after', ('--help',), ('count',))]
try:
    run_local(jobs, sys.argv[1])
except StoppedEarly as error:
    sys.exit(error.exit_code)
"""


def start(tmp_path, name):
    (tmp_path / "counting.py").write_text(COUNTING.replace("{name}", name))
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(tmp_path / "counting.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE)


def process_that_began(folder):
    """Wait until the counting job runs; its process id."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (folder / "begun").exists() and (text := (folder / "begun").read_text()):
            return int(text)
        time.sleep(0.1)
    pytest.fail("the job did not begin")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_reaches_the_job_and_the_same_graph_goes_on(tmp_path, name):
    run = start(tmp_path, name)
    process_that_began(tmp_path)
    run.send_signal(getattr(signal, name))
    assert run.wait() == 75
    run.stderr.close()
    assert (tmp_path / "at").read_text() == "2"  # it had the time to save
    assert not (tmp_path / "jobs" / "after.json").exists()
    again = start(tmp_path, name)
    assert again.wait() == 0, again.stderr.read()
    again.stderr.close()
    assert "from step 2" in (tmp_path / "logs" / "count.txt").read_text()
    assert (tmp_path / "jobs" / "after.json").exists()


def test_a_folder_stays_taken_while_a_job_of_a_killed_run_lives(tmp_path):
    run = start(tmp_path, "SIGINT")
    job = process_that_began(tmp_path)
    run.kill()
    run.wait()
    run.stderr.close()
    with pytest.raises(InputError, match="another run is busy"):
        run_local([noting(tmp_path, "other")], tmp_path)
    os.kill(job, signal.SIGINT)
    deadline = time.monotonic() + PATIENCE
    while is_held(tmp_path / ".lock") and time.monotonic() < deadline:
        time.sleep(0.1)
    run_local([noting(tmp_path, "other")], tmp_path)
    assert ran(tmp_path) == ["other"]
