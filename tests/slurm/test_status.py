"""What ``status`` and ``cancel`` make of a folder's files and of squeue's answers."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from densessl.core.errors import EnvironmentLacks, InputError
from densessl.slurm import cancel, status
from densessl.slurm import state as folder_state
from densessl.slurm.graph import Finished, Job
from densessl.slurm.local import JobFailed, run_local
from densessl.slurm.queue import Queued, parse, read_queue
from densessl.slurm.state import State, Submission


def job(name, *needs, **more):
    return Job(name, ("pass",), needs, program=(sys.executable, "-c"), **more)


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """``answers(squeue=TEXT)``: a squeue that prints it, and a scancel that notes its arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def put(squeue: str, code: int = 0) -> Path:
        scripts = {
            "squeue": f"#!/bin/sh\nprintf '%s' '{squeue}'\nexit {code}\n",
            "scancel": f"#!/bin/sh\necho \"$@\" > '{tmp_path}/cancelled'\n",
        }
        for name, text in scripts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(stat.S_IRWXU)
        return tmp_path / "cancelled"

    put("")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return put


def folder_of(tmp_path, *jobs, said=(), submitted=()):
    folder = tmp_path / "run"
    folder_state.write_graph(folder, jobs, {"partition": "p"})
    for name, state in dict(said).items():
        folder_state.write_state(folder, name, state)
    for name, number in dict(submitted).items():
        submission = Submission(number, "2026-01-01T00:00:00+00:00")
        folder_state.write_submission(folder, name, submission)
    return folder


def states(folder):
    return {row.name: row.state for row in status.look(folder)}


def test_a_graph_is_read_back_as_it_was_written(tmp_path):
    jobs = [
        job("a", outputs=(Path("x/y"),), env={"A": "1"}, content=("sum",)),
        job("b", "a", after=("a",), array="t"),
    ]
    folder = folder_of(tmp_path, *jobs)
    assert folder_state.read_graph(folder) == (jobs, {"partition": "p"})


def test_two_graphs_share_a_folder(tmp_path):
    first = [job("pretrain"), job("a", "pretrain"), job("never", "pretrain")]
    folder = folder_of(tmp_path, *first)
    for name in ("pretrain", "a"):
        folder_state.write_state(folder, name, State("done"))
    folder_state.write_graph(folder, [job("pretrain"), job("b", "pretrain")], {})
    assert [each.name for each in folder_state.read_graph(folder)[0]] == ["pretrain", "b", "a"]
    written = (folder / "graph.json").stat().st_mtime_ns
    folder_state.write_graph(folder, [job("pretrain"), job("b", "pretrain")], {})
    assert (folder / "graph.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"jobs": [{"name": 1}], "settings": {}}'])
def test_what_is_no_graph_is_one_message(tmp_path, text):
    with pytest.raises(InputError, match="there is no graph.json in it"):
        status.look(tmp_path)
    (tmp_path / "graph.json").write_text(text)
    with pytest.raises(InputError, match="is not a graph of jobs"):
        status.look(tmp_path)


def test_squeue_is_understood():
    text = (
        "12|RUNNING|None|2026-01-01T00:00:00\n"
        "13_4|PENDING|Dependency|N/A\n"
        "14|PENDING|Resources|2026-01-02T00:00:00\n"
        "15|CANCELLED|None|N/A\n"
    )
    assert parse(text) == {
        "12": Queued("RUNNING"),
        "13_4": Queued("PENDING", "Dependency"),
        "14": Queued("PENDING", "Resources", "2026-01-02T00:00:00"),
    }
    assert [each.runs for each in parse(text).values()] == [True, False, False]


def test_every_state_is_told_apart(tmp_path, answers):
    answers(
        "1|RUNNING|None|N/A\n2_1|PENDING|Dependency|N/A\n3|PENDING|BeginTime|N/A\n"
        "8|COMPLETING|None|N/A\n"
    )
    names = ("done", "runs", "queued", "requeued", "failed", "after", "lost", "stopped", "begins")
    jobs = [job(name) for name in names if name != "after"]
    jobs += [job("after", "failed"), job("never")]
    said = {
        "runs": State("running", "1", host="n1", started=folder_state.now()),
        "requeued": State("requeued", "3", requeues=2),
        "failed": State("failed", "4", code=1, error="Traceback\nValueError: no such image\n"),
        "lost": State("running", "6", host="n7"),
        "stopped": State("stopped", "7"),
    }
    numbers = {"runs": "1", "queued": "2_1", "requeued": "3", "failed": "4", "after": "5"}
    numbers |= {"lost": "6", "stopped": "7", "begins": "8"}
    folder = folder_of(tmp_path, *jobs, said=said, submitted=numbers)
    Finished(jobs, folder).mark("done", 61.0)
    rows = {row.name: row for row in status.look(folder)}
    assert {name: row.state for name, row in rows.items()} == {
        **{"done": "done", "runs": "running", "queued": "queued", "requeued": "requeued"},
        **{"failed": "failed", "after": "not run", "lost": "lost", "stopped": "stopped"},
        **{"begins": "running", "never": "waiting"},
    }
    assert rows["done"].seconds == 61.0 and rows["requeued"].requeues == 2
    assert rows["failed"].says == "ValueError: no such image"
    assert rows["after"].says == "'failed' failed" and "n7" in rows["lost"].says
    assert rows["queued"].says == "waits for the jobs before it"


def test_what_has_ended_is_read_while_slurm_is_asked(tmp_path, answers, monkeypatch):
    """squeue, which says nothing before, notes the end of a job and leaves it out."""
    jobs = [job("early"), job("late"), job("lost")]
    said = {"late": State("running", "2", host="n1"), "lost": State("running", "3", host="n1")}
    numbers = {"early": "1", "late": "2", "lost": "3"}
    folder = folder_of(tmp_path, *jobs, said=said, submitted=numbers)
    for name in ("early", "late"):
        Finished(jobs, folder).mark(name, 61.0)
    ended, place = tmp_path / "ended.json", folder / "jobs" / "late.json"
    place.rename(ended)
    folder_state.write_state(tmp_path, "late", State("done", "2"))
    read, of_all = tmp_path / "read", Finished.of_all
    answers("")
    (tmp_path / "bin" / "squeue").write_text(
        f"#!/bin/sh\nwhile [ ! -e '{read}' ]; do sleep 0.01; done\nmv '{ended}' '{place}'\n"
        f"mv '{tmp_path}/state/late.json' '{folder}/state/'\n"
    )

    def noted(finished):
        found = of_all(finished)
        read.touch()
        return found

    monkeypatch.setattr(Finished, "of_all", noted)
    monkeypatch.setattr(status, "PATIENCE", 60)
    rows = {row.name: row for row in status.look(folder)}
    assert {name: row.state for name, row in rows.items()} == {
        **{"early": "done", "late": "done", "lost": "lost"}
    }
    assert rows["late"].seconds == 61.0 and not rows["late"].away


def test_a_running_job_shows_its_step_and_speed(tmp_path, answers, capsys):
    answers("1|RUNNING|None|N/A\n")
    run = job("pretrain", outputs=(tmp_path / "moco" / "backbone_final.pth",))
    said = {"pretrain": State("running", "1", started=folder_state.now())}
    folder = folder_of(tmp_path, run, said=said, submitted={"pretrain": "1"})
    (folder / "logs").mkdir()
    (folder / "logs" / "pretrain.txt").write_text(
        "10:00:00 INFO pretrain 20/400, 2 h 10 min left  loss 7.1\n10:00:09 INFO epoch 1: loss 7\n"
    )
    (tmp_path / "moco").mkdir()
    lines = [{"iteration": 10, "images_per_second": 900.0}, {"iteration": 20}]
    lines[1]["images_per_second"] = 1234.56
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"cut sho'
    (tmp_path / "moco" / "metrics.jsonl").write_text(text)
    (row,) = status.look(folder)
    assert (row.step, row.total, row.left, row.speed) == (20, 400, "2 h 10 min", 1234.56)
    assert row.says == "epoch 1: loss 7"
    assert status.main([str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "20/400" in shown and "1234.6" in shown and "1 jobs: 1 running" in shown
    assert status.main([str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left"] == "2 h 10 min"


def test_a_run_on_this_machine_has_a_status_too(tmp_path):
    fails = Job("bad", ("raise SystemExit('no such weights')",), program=(sys.executable, "-c"))
    with pytest.raises(JobFailed):
        run_local([job("good"), fails, job("after", "bad")], tmp_path)
    rows = {row.name: row for row in status.look(tmp_path)}
    found = {name: row.state for name, row in rows.items()}
    assert found == {"good": "done", "bad": "failed", "after": "not run"}
    assert rows["bad"].says == "exit code 1: no such weights"


def test_a_killed_run_on_this_machine_does_not_run(tmp_path):
    folder = folder_of(tmp_path, job("a"), said={"a": State("running", host="here")})
    assert states(folder) == {"a": "stopped"}


def test_a_run_on_this_machine_is_not_for_cancel(tmp_path):
    run_local([job("a")], tmp_path)
    with pytest.raises(InputError, match="ran on this machine"):
        cancel.main([str(tmp_path)])


def test_a_machine_that_knows_no_controller_is_said(answers, tmp_path):
    (tmp_path / "bin" / "squeue").write_text(
        "#!/bin/sh\necho 'squeue: error: fetch_config' >&2\n"
        "echo 'squeue: fatal: Could not establish a configuration source' >&2\nexit 1\n"
    )
    with pytest.raises(EnvironmentLacks, match="knows no SLURM controller"):
        read_queue()


def test_squeue_that_fails_is_said(answers):
    answers("slurm_load_jobs error", code=1)
    with pytest.raises(Exception, match="squeue failed"):
        read_queue()


def test_only_what_is_queued_or_runs_is_cancelled(tmp_path, answers):
    note = answers("1|RUNNING|None|N/A\n9|RUNNING|None|N/A\n")  # 9 is not of this folder
    numbers = {"a": "1", "b": "2"}
    folder = folder_of(tmp_path, job("a"), job("b"), job("c"), submitted=numbers)
    assert cancel.main([str(folder)]) == 0
    assert note.read_text().split() == ["1"]
    assert folder_state.is_cancelled(folder)
    answers("")
    assert states(folder) == {"a": "cancelled", "b": "cancelled", "c": "waiting"}


def test_without_slurm_there_is_nothing_to_cancel(tmp_path, monkeypatch):
    folder = folder_of(tmp_path, job("a"), submitted={"a": "1"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="no squeue"):
        cancel.main([str(folder)])
    assert not folder_state.is_cancelled(folder)
