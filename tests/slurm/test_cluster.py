"""The mechanics of jobs on a real SLURM, with commands that take no time."""

import os
import signal
import sys
from pathlib import Path

import pytest

from densessl.core.errors import InputError
from densessl.slurm import state, submission
from densessl.slurm.graph import Job, Resources

pytestmark = pytest.mark.slow

NOTE = "import sys; open(sys.argv[1], 'a').write('x')"
TWO = f"{NOTE}\nimport time\nwhile len(open(sys.argv[1]).read()) < 2: time.sleep(0.05)"
# Counts, and begins where it was when it was asked to stop, as a pretraining does. It does not come
# to its end before the file ".go" is there: the test decides when, not the machine's speed.
COUNT = """
import os, pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
file = pathlib.Path(sys.argv[1])
step = int(file.read_text()) if file.exists() else 0
print('from step', step, flush=True)
while step < int(sys.argv[2]) or not os.path.exists(sys.argv[1] + '.go'):
    if asked:
        file.write_text(str(step))
        print('saved step', step, flush=True)
        sys.exit(75)
    time.sleep(0.1)
    step += 1
file.write_text(str(step))
pathlib.Path(sys.argv[1] + '.done').touch()
"""


@pytest.fixture
def counting(tmp_path):
    """``counting(steps, code=…)``: a job that counts, and ends once it is let go."""

    def make(steps=2, code=COUNT, **options) -> Job:
        program = tmp_path / "counting.py"
        program.write_text(code)
        file = tmp_path / "at"
        return Job(
            "count",
            (str(file), str(steps)),
            outputs=(file.with_suffix(".done"),),
            program=(sys.executable, str(program)),
            **options,
        )

    return make


def let_go(folder):
    """From now on the counting job may come to its end."""
    (folder / "at.go").touch()


def begun(folder, times=1):
    """Whether the counting job has begun for so many times."""
    log = folder / "logs" / "count.txt"
    return log.exists() and log.read_text().count("from step") == times


def submit(cluster, jobs, folder, **settings):
    placed = submission.submit(jobs, folder, cluster.settings(folder, **settings))
    return {each.job.name: each.state for each in placed}


def test_an_array_its_needs_and_what_comes_after(cluster, python, rows, tmp_path):
    folder = tmp_path / "a run"  # with a space

    def noting(name, code=NOTE, **options):
        output = folder / f"{name}.out"
        return python(name, code, output, outputs=(output,), **options)

    fails = f"{NOTE}; import pathlib; pathlib.Path('fixed').exists() or sys.exit('no weights')"
    jobs = [
        noting("first", TWO, resources=Resources(1, 2, "gpu")),
        *(
            noting(f"trial-{k}", fails if k == 3 else NOTE, needs=("first",), array="trial")
            for k in range(1, 6)
        ),
        noting("needs-all", needs=("trial-2", "trial-3")),
        noting("needs-it", needs=("needs-all",)),
        noting("table", after=tuple(f"trial-{k}" for k in range(1, 6))),
    ]
    folder.mkdir()
    became = submit(cluster, jobs, folder, array_parallelism=3)
    assert set(became.values()) == {"submitted"}
    numbers = {job.name: cluster.number(folder, job.name) for job in jobs}
    array = numbers["trial-1"].split("_")[0]
    assert [numbers[f"trial-{k}"] for k in range(1, 6)] == [f"{array}_{n}" for n in range(5)]
    again = submit(cluster, jobs, folder)  # what is in the queue is left alone
    assert "submitted" not in again.values()
    cluster.wait()

    assert (folder / "first.out").read_text() == "xx"  # by two processes
    assert (folder / "table.out").read_text() == "x"  # although a trial has failed
    said = rows(folder)
    assert said["trial-3"]["state"] == "failed" and "no weights" in said["trial-3"]["says"]
    for name in ("needs-all", "needs-it"):
        assert said[name]["state"] == "not run" and not (folder / f"{name}.out").exists()
    assert said["needs-all"]["says"] == "'trial-3' failed"
    done = ["first", "trial-1", "trial-2", "trial-4", "trial-5"]
    assert all(said[name]["state"] == "done" for name in done)

    (folder / "fixed").touch()
    became = submit(cluster, jobs, folder)
    assert [name for name in became if became[name] == "submitted"] == [
        *("trial-3", "needs-all", "needs-it", "table"),
    ]
    assert all(became[name] == "done" for name in done)
    cluster.wait()
    assert {row["state"] for row in rows(folder).values()} == {"done"}
    assert (folder / "trial-1.out").read_text() == "x"


def test_asked_to_stop_a_job_saves_and_comes_back(cluster, python, counting, rows, tmp_path):
    job = counting()
    after = python("after", NOTE, tmp_path / "after", needs=("count",))
    submit(cluster, [job, after], tmp_path)
    number = cluster.number(tmp_path, "count")
    log = tmp_path / "logs" / "count.txt"
    for n in range(1, 3):
        cluster.wait_until(lambda n=n: begun(tmp_path, n), f"the run {n}")
        cluster.run("scancel", "--signal=USR2", number)
        cluster.wait_until(lambda n=n: state.read_state(tmp_path, "count").requeues == n)
    let_go(tmp_path)
    cluster.wait()
    said = state.read_state(tmp_path, "count")
    assert (said.state, said.requeues, said.restarts) == ("done", 2, 0)
    assert said.slurm_job == number  # the same job, queued again
    lines = [line.split() for line in log.read_text().splitlines() if " step " in line]
    starts = [int(words[2]) for words in lines if words[0] == "from"]
    saved = [int(words[2]) for words in lines if words[0] == "saved"]
    assert starts == [0, *saved] and 0 <= saved[0] <= saved[1]
    assert (tmp_path / "after").read_text() == "x"
    assert "(2 of at most 100 times)" in log.read_text()
    assert rows(tmp_path)["count"]["requeues"] == 2


def test_what_comes_back_too_often_has_failed_and_retry_counts_anew(
    cluster, python, counting, densessl, tmp_path
):
    always = COUNT.replace("if asked:", "if asked or not os.path.exists(sys.argv[1] + '.go'):")
    always = always.replace("sys.exit(75)", "os.kill(os.getppid(), signal.SIGUSR2); sys.exit(75)")
    job = counting(1, always)
    after = python("after", NOTE, tmp_path / "after", needs=("count",))
    submit(cluster, [job, after], tmp_path, max_requeues=1)
    cluster.wait()
    said = state.read_state(tmp_path, "count")
    assert (said.state, said.requeues) == ("failed", 1)
    assert "stopped 2 times" in said.why and "max_requeues" in said.why
    assert not (tmp_path / "after").exists()
    let_go(tmp_path)
    assert "count: submitted as job" in densessl("submit", "retry", tmp_path)
    cluster.wait()
    said = state.read_state(tmp_path, "count")
    assert (said.state, said.requeues) == ("done", 0)
    assert (tmp_path / "after").read_text() == "x"
    assert "finished before" in densessl("submit", "retry", tmp_path)


def test_without_scontrol_a_job_submits_itself_anew_with_what_waits_for_it(
    cluster, python, counting, tmp_path
):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (programs / name).symlink_to(Path("/usr/bin") / name)
    for name in ("bash", "env"):
        (programs / name).symlink_to(Path("/bin") / name)
    jobs = [
        counting(),
        python("after", NOTE, tmp_path / "after", needs=("count",)),
        python("last", NOTE, tmp_path / "last", after=("after",)),
        python("other", NOTE, tmp_path / "other"),
    ]
    submit(cluster, jobs, tmp_path, setup=(f"export PATH={programs}",))
    cluster.wait_for(tmp_path, "count", "running")
    first = {job.name: cluster.number(tmp_path, job.name) for job in jobs}
    cluster.wait_until(lambda: begun(tmp_path), "the first run")
    cluster.run("scancel", "--signal=USR2", first["count"])
    cluster.wait_until(lambda: state.read_state(tmp_path, "count").requeues == 1, "it comes back")
    let_go(tmp_path)
    cluster.wait()
    second = {job.name: cluster.number(tmp_path, job.name) for job in jobs}
    assert all(second[name] != first[name] for name in ("count", "after", "last"))
    assert second["other"] == first["other"]
    said = state.read_state(tmp_path, "count")
    assert (said.state, said.requeues, said.slurm_job) == ("done", 1, second["count"])
    assert [(tmp_path / name).read_text() for name in ("after", "last", "other")] == ["x"] * 3


def test_a_preempted_job_saves_and_comes_back(cluster, counting, tmp_path):
    job = counting(resources=Resources(1, 8))
    submit(cluster, [job], tmp_path, partition="scavenge")
    log = tmp_path / "logs" / "count.txt"
    cluster.wait_until(lambda: begun(tmp_path), "the first run")
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/sh\n")
    cluster.run("sbatch", "--gpus-per-node=8", "--output=/dev/null", str(script))
    cluster.wait_until(lambda: begun(tmp_path, 2), "the second run")
    let_go(tmp_path)
    cluster.wait()
    said = state.read_state(tmp_path, "count")
    assert said.state == "done" and said.requeues + said.restarts == 1
    assert "saved step" in log.read_text()


def test_cancel_lets_a_job_save_and_retry_resumes(
    cluster, python, counting, densessl, rows, tmp_path
):
    after = python("after", NOTE, tmp_path / "after", needs=("count",))
    submit(cluster, [counting(), after], tmp_path)
    log = tmp_path / "logs" / "count.txt"
    cluster.wait_until(lambda: begun(tmp_path), "the first run")
    assert "2 jobs cancelled" in densessl("cancel", tmp_path)
    cluster.wait()
    assert "saved step" in log.read_text()
    said = rows(tmp_path)
    assert said["count"]["state"] == "stopped" and said["after"]["state"] != "done"
    let_go(tmp_path)
    densessl("submit", "retry", tmp_path)
    cluster.wait()
    assert {row["state"] for row in rows(tmp_path).values()} == {"done"}
    lines = log.read_text().split("from step ")
    assert begun(tmp_path, 2) and lines[1].split("saved step ")[1].split()[0] == lines[2].split()[0]


def test_one_process_that_dies_ends_all_and_its_end_is_told(cluster, python, rows, tmp_path):
    code = (
        "import os, pathlib, sys, time; rank = os.environ['RANK']; print('process', rank, "
        "flush=True); pathlib.Path(sys.argv[1], rank).write_text(str(os.getpid())); time.sleep(900)"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    job = python("wide", code, pids, resources=Resources(1, 4, "gpu"))
    submit(cluster, [job], tmp_path)
    cluster.wait_until(lambda: len([p for p in pids.iterdir() if p.read_text()]) == 4)
    os.kill(int((pids / "2").read_text()), signal.SIGKILL)
    cluster.wait()
    said = state.read_state(tmp_path, "wide")
    assert (said.state, said.code) == ("failed", 137)
    assert said.why.startswith("process 2: killed by SIGKILL")
    assert said.error.splitlines() == ["process 2"]
    assert not any(Path(f"/proc/{p.read_text()}").exists() for p in pids.iterdir())
    assert rows(tmp_path)["wide"]["state"] == "failed"


def test_two_submissions_in_one_folder_run_nothing_twice(cluster, python, tmp_path):
    slow = (
        "import os, sys, time\nwhile not os.path.exists('go'): time.sleep(0.1)\n"
        "open(sys.argv[1], 'a').write('x')"
    )
    output = tmp_path / "out"
    job = python("job", slow, output, outputs=(output,))
    submit(cluster, [job], tmp_path)
    (tmp_path / "cluster" / "job.json").unlink()  # as if it had been lost: submitted twice
    submit(cluster, [job], tmp_path)
    assert len(cluster.queue()) == 2
    (tmp_path / "go").touch()
    cluster.wait()
    assert output.read_text() == "x"
    assert state.read_state(tmp_path, "job").state == "done"

    (tmp_path / "go").unlink()
    submit(cluster, [python("other", slow, tmp_path / "two")], tmp_path)
    with pytest.raises(InputError, match="'other' is .* with other options than now"):
        submit(cluster, [python("other", slow, tmp_path / "three")], tmp_path)
    (tmp_path / "go").touch()
    cluster.wait()


def test_a_time_limit_is_met_with_a_save_and_the_job_comes_back(cluster, counting, tmp_path):
    steps = COUNT.replace("while step <", "while not step or not file.exists() and step <")
    let_go(tmp_path)
    submit(cluster, [counting(9000, steps)], tmp_path, time="2", signal_delay=45)
    cluster.wait()
    said = state.read_state(tmp_path, "count")
    log = (tmp_path / "logs" / "count.txt").read_text()
    assert (said.state, said.requeues) == ("done", 1)
    assert log.count("saved step") == 1 and begun(tmp_path, 2)


def test_sbatch_that_fails_now_and_then_and_one_that_refuses(
    cluster, python, tmp_path, monkeypatch, caplog
):
    programs = tmp_path / "bin"
    programs.mkdir()
    left = tmp_path / "left"
    flaky = programs / "sbatch"
    flaky.write_text(
        f"""#!/bin/sh
n=$(cat {left})
if [ "$n" -gt 0 ]; then
    echo $((n - 1)) > {left}
    [ "$n" = 1 ] && /usr/bin/sbatch "$@" > /dev/null
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
    exit 1
fi
exec /usr/bin/sbatch "$@"
"""
    )
    flaky.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    left.write_text("2")  # the second time the job is taken, and the answer lost
    output = tmp_path / "out"
    submit(cluster, [python("job", NOTE, output, outputs=(output,))], tmp_path)
    assert len(cluster.queue()) <= 1 and left.read_text() == "0\n"
    assert caplog.text.count("Socket timed out") == 2
    cluster.wait()
    assert output.read_text() == "x" and state.read_state(tmp_path, "job").state == "done"

    left.write_text("0")
    jobs = [python("good", NOTE, tmp_path / "good"), python("bad", NOTE, tmp_path / "bad")]
    with pytest.raises(InputError, match="sbatch refused.*[Ii]nvalid partition"):
        submit(cluster, jobs, tmp_path / "refused", partition="nowhere")
    assert not cluster.queue()


def test_status_answers_while_the_controller_is_stopped(
    cluster, slurm_server, counting, rows, tmp_path
):
    submit(cluster, [counting()], tmp_path)
    cluster.wait_until(lambda: begun(tmp_path), "the first run")
    controller = int((slurm_server.folder / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGSTOP)
    try:
        said = rows(tmp_path)["count"]
    finally:
        os.kill(controller, signal.SIGCONT)
    assert said["state"] == "running" and "squeue" in said["away"]
    let_go(tmp_path)
    cluster.wait()
    said = rows(tmp_path)["count"]
    assert said["state"] == "done" and not said["away"]
