"""One function in several processes, on one machine and on two."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from densessl.core.errors import InputError, Stalled, StoppedEarly
from densessl.d2_transfer import trials
from densessl.d2_transfer.launch import Machines, Rendezvous
from densessl.d2_transfer.resolve import resolve
from densessl.d2_transfer.weights import Weights

# The children import these by name, so they live in a file of their own.

CHILDREN = '''
import os, pathlib, signal, sys, time

import torch

from densessl.core.errors import InputError, StoppedEarly
from densessl.d2_transfer import compat
from densessl.d2_transfer.launch import Machines, Rendezvous

compat.setup()
from detectron2.utils import comm


def train(path):
    """Two steps of a linear model with DDP: each rank its own sample."""
    torch.manual_seed(0)
    create = compat._engine_defaults().create_ddp_model
    model = create(torch.nn.Linear(2, 1), broadcast_buffers=False)
    for _ in range(2):
        model.zero_grad()
        model(torch.tensor([[1.0, comm.get_rank()]])).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    weights = [p.tolist() for p in model.parameters()]
    everyone = comm.gather(weights)
    if comm.is_main_process():
        torch.save(everyone, path)


def refuse(path):
    if comm.get_rank() == 1:
        raise InputError(f"bad input in {path}")
    comm.synchronize()  # waits for the one that has left


class Worse(InputError):
    def __init__(self, message, number):
        super().__init__(f"{message} {number}")


def refuse_with_an_error_of_its_own(path):
    if comm.get_rank() == 1:
        raise Worse(f"bad input in {path}", 3)
    comm.synchronize()


def stand_still(run, trial):
    (run.folder / f"begun_{trial}").touch()
    comm.synchronize()
    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    comm.synchronize()


def stop(path):
    if comm.is_main_process():
        time.sleep(1)  # the slow one: writes the checkpoint
        pathlib.Path(path).write_text("saved")
    raise StoppedEarly("saved; run again to resume")


def train_until_told(path):
    told = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.append(True))
    pathlib.Path(path, f"started_{comm.get_rank()}").touch()
    while not told:
        time.sleep(0.05)
    pathlib.Path(path, f"saved_{comm.get_rank()}").touch()
    raise StoppedEarly("saved; run again to resume")


def one_of_several_machines(rank, port, folder):
    """What a machine does with two pieces of work, of which the first decides."""
    with Rendezvous(Machines(2, int(rank), "127.0.0.1", int(port))) as rendezvous:
        for piece in ("one", "two"):
            chosen = rendezvous.agree(piece if rendezvous.machines.first else "nonsense")
            rendezvous.run(train, 1, (f"{folder}/{chosen}.pth",), cuda=False)
        pathlib.Path(folder, f"last_{rank}").write_text(rendezvous.agree("end"))


def wait_or_fail(failing):
    """One machine fails; the other would wait for it in a collective."""
    if comm.get_rank() == int(failing):
        raise RuntimeError("no such image")
    torch.distributed.barrier()


def one_fails(rank, port, failing, _):
    with Rendezvous(Machines(2, int(rank), "127.0.0.1", int(port))) as rendezvous:
        rendezvous.run(wait_or_fail, 1, (failing,), cuda=False)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one_of_several_machines(*sys.argv[1:])
        sys.exit()
    if len(sys.argv) == 5:
        one_fails(*sys.argv[1:])
    try:
        Rendezvous().run(train_until_told, 2, (sys.argv[1],), cuda=False)
    except StoppedEarly as stopped:
        sys.exit(stopped.exit_code)
'''


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    (folder / "launched_by_test.py").write_text(CHILDREN)
    sys.path.insert(0, str(folder))
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), old]))
    import launched_by_test

    yield launched_by_test
    sys.path.remove(str(folder))
    os.environ.pop("PYTHONPATH") if old is None else os.environ.update(PYTHONPATH=old)


def test_two_processes_average_their_gradients(children, tmp_path):
    import torch

    Rendezvous().run(children.train, 2, (str(tmp_path / "w.pth"),), cuda=False)
    first, second = torch.load(tmp_path / "w.pth", weights_only=True)
    assert first == second
    torch.manual_seed(0)
    start = [p.tolist() for p in torch.nn.Linear(2, 1).parameters()]
    moved = [start[0][0][0] - 0.2, start[0][0][1] - 0.1, start[1][0] - 0.2]  # mean gradient 1, ½, 1
    assert first[0][0] + first[1] == pytest.approx(moved, abs=1e-6)


@pytest.mark.slow
def test_an_input_error_in_a_child_is_raised_as_itself(children, tmp_path):
    for refuse in (children.refuse, children.refuse_with_an_error_of_its_own):
        with pytest.raises(InputError, match="bad input in here"):
            Rendezvous().run(refuse, 2, ("here",), cuda=False)


@pytest.mark.slow
def test_after_a_standstill_no_further_trial_begins(children, tmp_path):
    weights = Weights("", "random", "", "random")
    words = ("coco_mask_fpn_1x", "moco2fc", True, weights, None)
    run = trials.Run(tmp_path, *words, gpus=2, stall_timeout=5)
    cfg = resolve("coco_mask_fpn_1x", gpus=2, mini=True, cuda=False)
    with pytest.raises(Stalled, match=r"progress for 5 s \(--stall-timeout\): process 1 .* does"):
        trials.run_trials(run, cfg, 2, 1, children.stand_still)
    assert [each.name for each in tmp_path.glob("begun_*")] == ["begun_1"]
    said = (tmp_path / "log.txt").read_text()
    assert "in stand_still" in said and "process 0" in said


def test_nobody_is_ended_before_the_slowest_has_saved(children, tmp_path):
    with pytest.raises(StoppedEarly, match="run again"):
        Rendezvous().run(children.stop, 2, (str(tmp_path / "state"),), cuda=False)
    assert (tmp_path / "state").read_text() == "saved"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_parent_reaches_every_process_and_all_save(children, tmp_path, number):
    job = subprocess.Popen([sys.executable, children.__file__, str(tmp_path)])
    while len(list(tmp_path.glob("started_*"))) < 2:
        assert job.poll() is None
        time.sleep(0.1)
    job.send_signal(number)
    assert job.wait() == StoppedEarly.exit_code
    assert len(list(tmp_path.glob("saved_*"))) == 2


def test_one_process_is_a_plain_call():
    seen = []
    Rendezvous().run(seen.append, 1, ("x",))
    assert seen == ["x"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_machines_do_the_same_work_together(children, tmp_path):
    import torch

    port = str(free_port())
    parents = [
        subprocess.Popen([sys.executable, children.__file__, rank, port, str(tmp_path)])
        for rank in ("1", "0")  # the second is there first, and waits
    ]
    assert [parent.wait() for parent in parents] == [0, 0]
    for piece in ("one", "two"):
        first, second = torch.load(tmp_path / f"{piece}.pth", weights_only=True)
        torch.manual_seed(0)
        start = [p.tolist() for p in torch.nn.Linear(2, 1).parameters()]
        assert first == second and first != start
        assert first[0][0][1] == pytest.approx(start[0][0][1] - 0.1, abs=1e-6)  # ranks 0 and 1
    assert [(tmp_path / f"last_{rank}").read_text() for rank in (0, 1)] == ["end", "end"]


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["0", "1"])
def test_a_failure_on_one_machine_ends_the_other_at_once(children, failing):
    port = str(free_port())
    words = [[sys.executable, children.__file__, rank, port, failing, ""] for rank in "01"]
    machines = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in words]
    said = [machine.communicate()[1] for machine in machines]
    assert all(machine.returncode for machine in machines)
    assert "no such image" in said[int(failing)]
    assert "no such image" in said[1 - int(failing)] or "has left" in said[0]


@pytest.mark.parametrize(
    "count, rank, url, says",
    [
        (2, 2, "tcp://a:1", "--machine-rank is 2.*0 to 1"),
        (2, 1, None, "--dist-url is missing"),
        (2, 1, "a", "--dist-url is 'a'.*tcp://HOST:PORT"),
        (2, 1, "tcp://a:0", "--dist-url is 'tcp://a:0'"),
        (2, 1, "tcp://a:99999", "--dist-url"),
    ],
)
def test_wrong_machines_are_one_message(count, rank, url, says):
    with pytest.raises(InputError, match=says):
        Machines.parse(count, rank, url)


def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"no rendezvous at tcp://127.0.0.1:{port}"):
            Rendezvous(Machines(2, 0, "127.0.0.1", port)).__enter__()
