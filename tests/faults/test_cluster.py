"""Faults of a cluster: what SLURM misunderstands, commands that fail, a controller that is away.

SLURM's commands are small programs on PATH; tests/slurm has the same against a real SLURM.
"""

import json
import os
import random
import re
import subprocess
import sys

import pytest

from densessl.core.errors import InputError, StoppedEarly
from densessl.slurm import commands, state, status, submission
from densessl.slurm.graph import Finished, Job
from densessl.slurm.settings import Cluster, load
from densessl.slurm.state import State, Submission

SEEDS = 20
FAST = 4  # of them are among the fast tests
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
# Each call takes the next letter of DIR/faults: "." works, "f" fails before it does anything,
# "l" is done and its answer lost. What sbatch takes is a line of DIR/taken: number|script.
FLAKY = """#!/bin/bash
n=$(cat DIR/calls); echo $((n + 1)) > DIR/calls
fault=$(cut -c$((n + 1)) DIR/faults)
name=$(basename "$0")
if [ "$fault" != f ]; then
    if [ $name = sbatch ]; then
        number=$((100 + $(wc -l < DIR/taken)))
        echo "$number|$1" >> DIR/taken
        cp "$1" DIR/script.$number
        said="Submitted batch job $number"
    elif [[ "$*" = *%o* ]]; then
        said=$(cat DIR/taken)
    else
        said=$(sed 's/|.*/|PENDING|Priority|N\\/A/' DIR/taken)
    fi
fi
if [ "$fault" = f ] || [ "$fault" = l ]; then echo "LOST" >&2; exit 1; fi
[ -z "$said" ] || echo "$said"
""".replace("LOST", LOST)


def job(name, *needs, **more):
    return Job(name, ("pass",), needs, program=(sys.executable, "-c"), **more)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder: its ``faults`` say how the calls of sbatch and squeue end, ``taken`` what came."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "squeue", "srun"):
        (folder / name).write_text(FLAKY.replace("DIR", str(folder)))
        (folder / name).chmod(0o755)
    for name, text in {"calls": "0", "faults": "", "taken": ""}.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(commands, "BACKOFF", (0, 0, 0, 0, 0))
    return folder


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= FAST)) for seed in range(SEEDS)],
)
def test_commands_that_fail_at_random_submit_each_job_once_and_in_a_chain(slurm, tmp_path, seed):
    rng = random.Random(seed)
    faults = "".join(rng.choices(".fl", (6, 3, 2), k=400))
    (slurm / "faults").write_text(faults)
    graph = [job("a"), job("b", "a"), job("c", "b"), job("d", "b", "c")]
    cluster = Cluster(chdir=str(tmp_path))
    for _ in range(40):  # as a person does who is told to run the same command again later
        try:
            placed = submission.submit(graph, tmp_path / "run", cluster)
            break
        except StoppedEarly:
            continue
    numbers = {each.job.name: each.slurm_job for each in placed}
    assert sorted(numbers.values()) == ["100", "101", "102", "103"]
    assert len((slurm / "taken").read_text().splitlines()) == 4
    for each in graph:
        text = (slurm / f"script.{numbers[each.name]}").read_text()
        (waits,) = re.findall("--dependency=(.*)", text) or [""]
        needed = [numbers[need] for need in each.needs]
        assert waits == (":".join(["afterok", *needed]) if needed else "")


def settings_file(tmp_path, key, value):
    file = tmp_path / "slurm.yaml"
    lines = json.dumps(value)  # YAML, too
    file.write_text(f"extra: {{{lines}: x}}\n" if key == "KEY" else f"{key}: {lines}\n")
    return file


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, "gpu\n#SBATCH --wrap=x") for key in ("partition", "account", "qos", "constraint")),
        *((key, "a100\ntouch here") for key in ("gpu_type", "container", "python")),
        ("extra", {"comment": "a\ntouch here"}),
        ("modules", ["cuda\ntouch here"]),
        ("KEY", "comment\ntouch here\n#SBATCH --comment"),
        ("KEY", "wrap it"),
    ],
)
def test_a_line_feed_in_a_setting_never_becomes_a_line_of_a_batch_file(tmp_path, key, value):
    with pytest.raises(InputError) as error:
        load(file=settings_file(tmp_path, key, value))
    assert len(str(error.value).splitlines()) == 1 and "slurm.yaml" in str(error.value)


def test_the_line_feed_that_ends_a_block_of_yaml_is_none_of_a_setting(tmp_path):
    file = settings_file(tmp_path, "container", "apptainer exec image.sif\n")
    assert load(file=file).base["container"] == "apptainer exec image.sif"


@pytest.mark.parametrize("name", ["1%aug", "10%nodes", "100%", "a\nb", "a\\b", "a\x1b[2J"])
def test_a_folder_that_slurm_would_understand_otherwise_is_refused(slurm, tmp_path, name):
    folder = tmp_path / name
    for submits in (submission.submit, submission.preview):
        with pytest.raises(InputError, match="the folder") as error:
            submits([job("a")], folder, Cluster(chdir=str(tmp_path)))
        assert not {"\n", "\x1b"} & set(str(error.value))
    assert not folder.exists() and not (slurm / "taken").read_text()


def test_a_working_folder_with_a_line_feed_is_refused(slurm, tmp_path):
    cluster = Cluster(chdir=f"{tmp_path}/a\nb")
    with pytest.raises(InputError, match=r"a\\nb"):
        submission.submit([job("a")], tmp_path / "run", cluster)


def test_a_line_feed_in_an_argument_stays_in_its_comment(tmp_path):
    graph = [Job("a", ("pretrain", "DATA.PATH", "a\ntouch here"))]
    text = submission.preview(graph, tmp_path / "run", Cluster(chdir=str(tmp_path)))
    assert "touch here" in text
    assert not [line for line in text.splitlines() if line.startswith("touch")]


@pytest.mark.parametrize("number", ["7\n#SBATCH --wrap=x", 7, "", "7;8"])
def test_a_damaged_number_never_reaches_a_batch_file(slurm, tmp_path, number):
    graph, folder = [job("a"), job("b", "a")], tmp_path / "run"
    state.write_submission(folder, "a", Submission(number, "2026-01-01T00:00:00+00:00"))
    state.write_submission(folder, "b", Submission("9", "yesterday"))
    submission.submit(graph, folder, Cluster(chdir=str(tmp_path)))
    assert "--dependency=afterok:100\n" in (slurm / "script.101").read_text()


@pytest.fixture
def run(tmp_path):
    """A folder whose jobs were submitted, with what they said of themselves."""
    folder = tmp_path / "run"
    said = {
        "runs": State("running", "1", "n1", state.now()),
        "back": State("requeued", "2", requeues=1),
        "killed": State("failed", "3", code=137, why="process 0: killed by SIGKILL"),
        "wrong": State("failed", "4", code=1, why="process 0: exit code 1", error="x\nno weights"),
        "old": State("failed", "4", code=1, error="exit code 1\nno weights"),
    }
    jobs = [job(name) for name in (*said, "waits", "done", "never")]
    state.write_graph(folder, jobs, {"partition": "p"})
    for name, each in said.items():
        state.write_state(folder, name, each)
        state.write_submission(folder, name, Submission(each.slurm_job, state.now()))
    state.write_submission(folder, "waits", Submission("6", state.now()))
    Finished(jobs, folder).mark("done", 5.0)
    (folder / "logs").mkdir()
    for name in ("runs", "killed"):
        log = "10:00:00 INFO pretrain 20/400, 2 h 10 min left  loss 7.1\n"
        (folder / "logs" / f"{name}.txt").write_text(log)
    return folder


AWAY = {
    "never answers": "#!/bin/sh\nwhile [ ! -e DIR/go ]; do sleep 0.1; done\n",
    "fails": "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact controller' >&2; exit 1\n",
    "unconfigured": "#!/bin/sh\necho 'could not establish a configuration source' >&2; exit 1\n",
    "none": None,
}


@pytest.mark.parametrize("how", AWAY)
def test_status_answers_from_the_files_where_the_controller_is_away(
    run, densessl, tmp_path, monkeypatch, how
):
    programs = tmp_path / "bin"
    programs.mkdir()
    path = f"{programs}:{os.environ['PATH']}"
    if text := AWAY[how]:
        (programs / "squeue").write_text(text.replace("DIR", str(tmp_path)))
        (programs / "squeue").chmod(0o755)
    else:
        path = str(programs)
    monkeypatch.setenv("PATH", path)
    lines = densessl("status", run, "--json").splitlines()  # while squeue still waits
    (tmp_path / "go").touch()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    assert {name: row["state"] for name, row in rows.items()} == {
        **{"runs": "running", "back": "requeued", "killed": "failed", "wrong": "failed"},
        **{"old": "failed", "waits": "queued", "done": "done", "never": "waiting"},
    }
    assert rows["runs"]["step"] == 20 and all(row["away"] for row in rows.values())
    (tmp_path / "go").unlink()
    assert "does not answer" in densessl("status", run)


def answering(tmp_path, monkeypatch, answer=""):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squeue").write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\n")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_status_says_why_a_job_failed_and_not_what_it_was_at(run, tmp_path, monkeypatch):
    answering(tmp_path, monkeypatch)
    logs = run / "cluster" / "submitit"
    logs.mkdir()
    (logs / "3_0_log.err").write_text(
        "slurmstepd: error: Detected 1 oom_kill event in StepId=3.0. Some of the step tasks have "
        "been OOM Killed.\nsrun: error: n1: task 0: Out Of Memory\n"
    )
    (logs / "1_0_log.err").write_text(
        "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT\n"
    )
    rows = {row.name: row for row in status.look(run)}
    assert rows["runs"].state == "lost" and "DUE TO TIME LIMIT;" in rows["runs"].says
    assert "oom_kill" in rows["killed"].says and "SIGKILL" in rows["killed"].says
    assert rows["wrong"].says == "process 0: exit code 1: no weights"
    assert rows["old"].says == "no weights"  # of an earlier version, which had no words of its own
    assert "20/400" not in rows["killed"].says and not any(row.away for row in rows.values())


def test_escapes_in_states_and_logs_are_shown_and_not_obeyed(run, densessl, tmp_path, monkeypatch):
    answering(tmp_path, monkeypatch, "6|PENDING|\x1b[2J|N/A\n1|RUNNING|None|N/A\n")
    escape = "\x1b]0;title\x07"
    for name, said in (
        ("killed", State("failed", "3", why=escape)),
        ("wrong", State("failed", "4", error=escape)),
        ("back", State("running", "2", escape)),
    ):
        state.write_state(run, name, said)
    (run / "logs" / "runs.txt").write_text(f"at 2/3, {escape} left\n{escape}\n")
    said = densessl("status", run)
    assert not {"\x1b", "\x07"} & set(said)
    assert said.count(r"\x1b]0;title") >= 4 and r"\x1b[2J" in said


@pytest.mark.parametrize("text", ['{"state": 1}', "[]", '{"state": "failed", "error": 5}', "\0"])
def test_a_damaged_state_is_none(run, tmp_path, monkeypatch, text):
    answering(tmp_path, monkeypatch)
    for name in ("killed", "wrong"):
        (run / "state" / f"{name}.json").write_text(text)
    rows = {row.name: row.state for row in status.look(run)}
    assert rows["killed"] == "cancelled"


CALL = """
import pickle, sys
with open(sys.argv[1], "rb") as stream:
    pickle.load(stream)()
"""


def test_a_job_waits_until_what_it_needs_is_seen_to_be_finished(tmp_path, monkeypatch, until):
    """As on a network disk that shows another node's files late: else its own mark, which names
    what came before, would not be that of the finished graph, and it would run once more."""
    import pickle

    from densessl.slurm.task import Task

    answering(tmp_path, monkeypatch)
    folder, out, last = tmp_path / "run", tmp_path / "out", tmp_path / "last"
    code = "import sys; open(sys.argv[1], 'a').write('x')"
    program = (sys.executable, "-c")
    graph = (
        Job("first", (code, str(out)), outputs=(out,), program=program),
        Job("second", (code, str(last)), ("first",), (last,), program=program),
    )
    task = Task(str(folder), "second", graph, "2026-01-01T00:00:00+00:00", sys.executable)
    (tmp_path / "task").write_bytes(pickle.dumps(task))
    out.write_text("x")  # it is seen, and the mark is not
    environment = os.environ | {
        **{"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"},
        **{"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODEID": "0"},
        **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, str(tmp_path / "task")], env=environment, stderr=-3
    )
    until((folder / "state" / "second.json").exists, "the job has begun")
    Finished(graph, folder).mark("first", 1.0)
    assert process.wait() == 0
    assert Finished(graph, folder).seconds("second") is not None


def test_a_submission_after_the_clock_was_set_back_is_the_later_one(slurm, tmp_path):
    graph, folder = [job("a")], tmp_path / "run"
    ahead = "2099-01-01T00:00:00.000000+00:00"
    state.write_submission(folder, "a", Submission("7", ahead))
    submission.submit(graph, folder, Cluster(chdir=str(tmp_path)))
    last = state.read_submission(folder, "a")
    assert last.slurm_job == "100" and last.submitted > ahead
