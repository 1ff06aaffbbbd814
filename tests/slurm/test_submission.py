"""What would be given to sbatch, and how its answers are taken. sbatch is a small program here."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import densessl
from densessl.core.errors import EnvironmentLacks, InputError, StoppedEarly
from densessl.slurm import batch, commands, flags, main, state, submission
from densessl.slurm.graph import Finished, Job, Resources
from densessl.slurm.settings import Cluster
from densessl.slurm.state import Submission

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def graph(tmp_path):
    """A pretraining, its conversion, three trials and the table."""
    weights, converted = tmp_path / "moco" / "backbone_final.pth", tmp_path / "moco.pkl"
    trial = ("transfer", converted, "--protocol", "voc_det_c4", "--trials", 3)
    return [
        Job(
            "pretrain-moco",
            ("pretrain", "--config", "moco_v2", "OUTPUT_DIR", weights.parent),
            outputs=(weights,),
            resources=Resources(2, 8, "gpu", 30.0),
        ),
        Job(
            "convert-moco", ("convert", weights, "-o", converted), ("pretrain-moco",), (converted,)
        ),
        *(
            Job(
                f"trial-{k}",
                (*trial, "--trial", k, "-o", tmp_path / "voc"),
                needs=("convert-moco",),
                outputs=(tmp_path / "voc" / f"trial_{k}" / "result.json",),
                resources=Resources(1, 8, "node", 3.6),
                array="trial",
            )
            for k in (1, 2, 3)
        ),
        Job("table", ("table", tmp_path / "voc"), after=("trial-1", "trial-2", "trial-3")),
    ]


@pytest.fixture
def cluster():
    base = {
        "partition": "gpu",
        "account": "vision",
        "constraint": "a100&ib",
        "time": "24:00:00",
        "cpus_per_gpu": 10,
        "mem_gb": 400.0,
        "modules": ("cuda/12.4",),
        "setup": ("source ~/env.sh",),
        "container": "apptainer exec --nv image.sif",
        "python": "python3",
        "extra": {"mail-type": "FAIL", "exclusive": True},
        "array_parallelism": 2,
    }
    return Cluster(
        base, {"table": {"partition": "cpu", "time": "30", "constraint": ""}}, chdir="/w"
    )


def test_a_dry_run_prints_the_batch_files(graph, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no SLURM is needed
    text = flags.preview(graph, tmp_path / "run", cluster)
    places = ((sys.executable, "PYTHON"), (str(tmp_path), "TMP"), (str(ROOT), "ROOT"))
    for place, name in places:
        text = text.replace(place, name)
    expected = HERE / "dry_run.txt"  # written anew where it is deleted: read the difference
    if not expected.exists():
        expected.write_text(text)
    assert text == expected.read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="batch files are for bash")
def test_batch_files_are_valid_shell(graph, cluster, tmp_path):
    text = flags.preview(graph, tmp_path / "a 'run'", cluster)
    checked = subprocess.run(["/bin/bash", "-n"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("resources", "settings", "expected"),
    [
        (Resources(1, 8, "gpu"), {}, {"ntasks_per_node": 8, "cpus_per_task": 6}),
        (Resources(2, 4, "node"), {}, {"nodes": 2, "ntasks_per_node": 1, "cpus_per_task": 24}),
        (Resources(), {}, {"ntasks_per_node": 1, "cpus_per_task": 6, "gpus_per_node": None}),
        (Resources(1, 0, "gpu"), {}, {"ntasks_per_node": 1, "gpus_per_node": None}),
        (Resources(1, 2), {"gpu_type": "h100"}, {"gpus_per_node": "h100:2", "gres": None}),
        (Resources(1, 2), {"gpu_request": "gres"}, {"gpus_per_node": None, "gres": "gpu:2"}),
        (Resources(1, 2), {"gpu_request": "none"}, {"gpus_per_node": None, "gres": None}),
        (Resources(), {"mem_gb": 1.5}, {"mem": "1536M", "time": None}),
        (Resources(), {"time": "2-0"}, {"time": 2880}),
    ],
)
def test_resources_in_sbatchs_words(resources, settings, expected):
    settings = Cluster({"cpus_per_gpu": 6, **settings}).of(Job("j", ()))
    made = batch.JobBatch((Job("j", (), resources=resources),), settings, "")
    found = batch.parameters(made, "/w")
    assert {key: found.get(key) for key in expected} == expected


def test_a_dry_run_of_a_pretraining_says_the_config(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    command = ["submit", "pretrain", "--config", "moco_v2", "--gpus", "4", "--time", "24:00"]
    command += ["--partition", "gpu", "--dry-run", "DATA.PATH", ".", "SOLVER.EPOCHS", "7"]
    assert densessl.main(command) == 0
    said = capsys.readouterr().out
    assert "24 minutes (24:00 is MINUTES:SECONDS" in said
    assert "#SBATCH --partition=gpu" in said and "#SBATCH --ntasks-per-node=4" in said
    assert "EPOCHS: 7" in said and f"OUTPUT_DIR {tmp_path}/" in said
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_trials_converts_first_and_says_the_config(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "moco.pth").write_bytes(b"weights")
    command = ["submit", "transfer", "moco.pth", "--protocol", "voc_det_c4", "--trials", "3"]
    command += ["-o", "voc", "--gpus", "8", "--dry-run", "SOLVER.MAX_ITER", "100"]
    assert densessl.main(command) == 0
    said = capsys.readouterr().out
    assert f"convert {tmp_path}/moco.pth -o {tmp_path}/voc/weights.pkl" in said
    assert f"transfer {tmp_path}/voc/weights.pkl --trials 3 --trial 3" in said
    assert "--array=0-2%3" in said and "--dependency=afterok:convert" in said
    assert "MAX_ITER: 100" in said
    assert [path.name for path in tmp_path.iterdir()] == ["moco.pth"]


def test_a_dry_run_of_a_pipeline_says_its_cost_and_every_batch_file(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    command = ["submit", "pipeline", "demo", "-o", "demo", "--gpus", "0", "--dry-run"]
    assert densessl.main(command) == 0
    said = capsys.readouterr().out
    assert "V100-hours left" in said
    assert "--job-name=densessl-scenes" in said and "--job-name=densessl-table" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrian"], "'pretrian'. Did you mean 'pretrain'"),
        (["pretrain"], "--config is missing"),
        (
            ["pretrain", "--config", "moco_v2", "DATA.PATH", ".", "--gpus", "-1"],
            "--gpus: the value is -1",
        ),
        (["pretrain", "--config", "moco_v2", "DATA.PATH", ".", "--time", "1d"], "'1d' in the comm"),
        (["pretrain", "--config", "moco_v2", "--partion", "x"], "mean '--partition'"),
        (
            ["pretrain", "--config", "moco_v2", "DATA.PATH", ".", "-o", "a", "OUTPUT_DIR", "b"],
            "-o a and OUTPUT_DIR b",
        ),
        (["transfer", "x.pth", "--protocol", "knn"], "-o/--output-dir"),
        (["transfer", "x.pth", "--protocol", "knn", "-o", "d"], "'.*x.pth' are not a file"),
        (["transfer", "random", "--protocol", "knm", "-o", "d"], "mean 'knn'"),
        (["retry", "nowhere"], "nowhere holds no jobs"),
    ],
)
def test_wrong_input_is_one_message_and_leaves_nothing(
    words, message, monkeypatch, tmp_path, capsys
):
    import re

    monkeypatch.chdir(tmp_path)
    assert densessl.main(["submit", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("densessl submit: ") and re.search(message, said), said
    assert list(tmp_path.iterdir()) == []


def test_without_slurm_it_says_what_is_missing(graph, cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentLacks, match="no sbatch, srun, squeue here.*--dry-run"):
        submission.submit(graph, tmp_path / "run", cluster)
    assert not (tmp_path / "run").exists()


SBATCH = """\
#!/bin/sh
n=$(cat DIR/calls); echo $((n + 1)) > DIR/calls
if [ -s DIR/fault.$n ]; then cat DIR/fault.$n >&2; exit 1; fi
cp "$1" DIR/script.$n
echo "Submitted batch job $((n + 100))"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder: ``fault.N`` is how sbatch fails the Nth time, ``queue`` is what squeue answers."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    programs = {"sbatch": SBATCH, "squeue": "#!/bin/sh\ncat DIR/queue\n", "srun": "#!/bin/sh\n"}
    for name, text in programs.items():
        (folder / name).write_text(text.replace("DIR", str(folder)))
        (folder / name).chmod(0o755)
    (folder / "calls").write_text("0")
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(commands, "BACKOFF", (0, 0, 0))
    return folder


def sent(slurm) -> list[str]:
    """What the scripts that sbatch took depend on, in order."""
    texts = [file.read_text() for file in sorted(slurm.glob("script.*"))]
    lines = [[line for line in text.splitlines() if "--dependency" in line] for text in texts]
    return [each[0].partition("dependency=")[2] if each else "" for each in lines]


def test_jobs_wait_for_the_numbers_of_those_before(slurm, graph, cluster, tmp_path):
    placed = submission.submit(graph, tmp_path / "run", cluster)
    assert [each.slurm_job for each in placed] == ["100", "101", "102_0", "102_1", "102_2", "103"]
    assert sent(slurm) == ["", "afterok:100", "afterok:101", "afterany:102_0:102_1:102_2"]
    jobs, settings = state.read_graph(tmp_path / "run")
    assert [job.name for job in jobs] == [job.name for job in graph]
    assert Cluster.from_dict(settings).of(jobs[0]) == cluster.of(graph[0])
    pickles = sorted(file.name for file in (tmp_path / "run").rglob("*.pkl"))
    assert pickles == [
        f"{name}_submitted.pkl" for name in ("100", "101", "102_0", "102_1", "102_2", "103")
    ]


def test_what_is_finished_or_queued_is_left_alone(slurm, graph, cluster, tmp_path):
    folder = tmp_path / "run"
    for name in graph[0].outputs:
        name.parent.mkdir(parents=True)
        name.touch()
    Finished(graph, folder).mark("pretrain-moco", 1)
    state.write_submission(folder, "convert-moco", Submission("7", "2026-01-01T00:00:00+00:00"))
    state.write_submission(folder, "trial-2", Submission("8_1", "2026-01-01T00:00:00+00:00"))
    (slurm / "queue").write_text(
        "7|PENDING|Priority|N/A\n8_1|RUNNING|None|N/A\n9|RUNNING|None|N/A\n"
    )
    placed = submission.submit(graph, folder, cluster)
    assert {each.job.name: (each.state, each.slurm_job) for each in placed} == {
        "pretrain-moco": ("done", ""),
        "convert-moco": ("pending", "7"),
        "trial-1": ("submitted", "100_0"),
        "trial-2": ("running", "8_1"),
        "trial-3": ("submitted", "100_1"),
        "table": ("submitted", "101"),
    }
    assert sent(slurm) == ["afterok:7", "afterany:100_0:8_1:100_1"]


def test_what_comes_after_a_job_that_is_to_run_again_is_submitted_too(
    slurm, graph, cluster, tmp_path
):
    folder = tmp_path / "run"
    for job in graph:
        for output in job.outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
        Finished(graph, folder).mark(job.name, 1)
    graph[3].outputs[0].unlink()  # of trial-2
    placed = submission.submit(graph, folder, cluster)
    assert [each.job.name for each in placed if each.state == "submitted"] == ["trial-2", "table"]
    assert sent(slurm) == ["", "afterany:100"]


def test_a_busy_slurm_is_asked_again_and_said(slurm, graph, cluster, tmp_path, caplog):
    (slurm / "fault.1").write_text("sbatch: error: Socket timed out on send/recv operation\n")
    (slurm / "fault.2").write_text("sbatch: error: Unable to contact slurm controller\n")
    with caplog.at_level(logging.INFO, "densessl"):
        placed = submission.submit(graph, tmp_path / "run", cluster)
    assert [each.slurm_job for each in placed][:3] == ["100", "103", "104_0"]
    assert "sbatch: sbatch: error: Socket timed out" in caplog.text
    assert "convert-moco: submitted as job 103" in caplog.text


def test_an_answer_that_was_lost_is_found_in_the_queue(slurm, graph, cluster, tmp_path):
    (slurm / "fault.0").write_text("sbatch: error: Socket timed out on send/recv operation\n")
    (slurm / "squeue").write_text(
        f"""#!/bin/sh
case "$*" in *%o*) echo "55|$(ls {tmp_path}/run/cluster/submitit/.submission_file_*.sh)";; esac
"""
    )
    placed = submission.submit(graph[:1], tmp_path / "run", cluster)
    assert placed[0].slurm_job == "55"
    assert (slurm / "calls").read_text() == "1\n"


def test_a_slurm_that_stays_busy_keeps_what_was_submitted(slurm, graph, cluster, tmp_path):
    for n in range(1, 5):
        (slurm / f"fault.{n}").write_text("sbatch: error: Socket timed out\n")
    with pytest.raises(StoppedEarly, match="sbatch failed 4 times .*Socket timed out"):
        submission.submit(graph, tmp_path / "run", cluster)
    assert state.read_submission(tmp_path / "run", "pretrain-moco").slurm_job == "100"
    (slurm / "queue").write_text("100|PENDING|Priority|N/A\n")
    placed = submission.submit(graph, tmp_path / "run", cluster)
    assert [each.state for each in placed] == ["pending", *["submitted"] * 5]
    assert sent(slurm)[1] == "afterok:100"


def test_a_refusal_is_said_in_sbatchs_words(slurm, graph, cluster, tmp_path):
    (slurm / "fault.1").write_text("sbatch: error: Batch job submission failed: Invalid account\n")
    with pytest.raises(InputError, match="refused: .*Invalid account.*the file is .*[.]sh"):
        submission.submit(graph, tmp_path / "run", cluster)
    assert (slurm / "calls").read_text() == "2\n"
    assert len(list((tmp_path / "run").rglob("*.pkl"))) == 1  # of the first


def test_a_job_in_the_queue_with_other_options_is_refused(slurm, graph, cluster, tmp_path):
    submission.submit(graph[:1], tmp_path / "run", cluster)
    (slurm / "queue").write_text("100|PENDING|Priority|N/A\n")
    changed = Job("pretrain-moco", ("pretrain", "--config", "simsiam"), resources=Resources(1, 8))
    with pytest.raises(InputError, match="'pretrain-moco' is pending as job 100.*densessl cancel"):
        submission.submit([changed], tmp_path / "run", cluster)
    assert state.read_graph(tmp_path / "run")[0][0].argv == tuple(map(str, graph[0].argv))


def test_a_submission_is_alone_in_its_folder(slurm, graph, cluster, tmp_path):
    code = (
        "import sys, pathlib; from densessl.core.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), None): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run" / "cluster" / ".lock")]
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another submission is busy"):
            submission.submit(graph, tmp_path / "run", cluster)
        other.communicate("\n")
    submission.submit(graph, tmp_path / "run", cluster)


def test_a_job_of_slurm_can_submit_others(slurm, graph, cluster, tmp_path, monkeypatch):
    note = slurm / "environment"
    text = (slurm / "sbatch").read_text()
    (slurm / "sbatch").write_text(text.replace("#!/bin/sh\n", f"#!/bin/sh\nenv > {note}\n"))
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SBATCH_ACCOUNT", "vision")
    submission.submit(graph[:1], tmp_path / "run", cluster)
    names = [line.partition("=")[0] for line in note.read_text().splitlines()]
    assert {"SLURM_CONF", "SBATCH_ACCOUNT"} <= set(names)
    assert not {"SLURM_JOB_ID", "SLURM_NTASKS"} & set(names)
    assert os.environ["SLURM_NTASKS"] == "8"


def test_data_that_are_not_here_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["pretrain", "--config", "setsim_paper", "-o", "out", "--dry-run", "DATA.PATH"]
    assert main.main([*words, "no/train"]) == 0
    assert "DATA.PATH no/train is not on this machine" in capsys.readouterr().err
    assert main.main([*words, str(tmp_path)]) == 0
    assert "not on this machine" not in capsys.readouterr().err
    words = ["transfer", "random", "--protocol", "voc_det_c4", "-o", "voc", "--dry-run"]
    assert main.main([*words, "--data", "no"]) == 0
    assert "VOC2007: no/VOC2007 is not on this machine" in capsys.readouterr().err
