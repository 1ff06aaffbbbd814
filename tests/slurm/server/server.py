"""A real SLURM on this machine's loopback: 16 pretended CPUs and 8 pretended GPUs, for tests.

As root, with Debian's ``slurm-wlm`` and ``munge``. By hand, until Ctrl-C:

    python tests/slurm/server/server.py
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "densessl-slurm-"
DAEMONS = ("slurmd", "slurmctld", "munged")
FIX = "apt-get install -y --no-install-recommends slurm-wlm munge"


def why_not() -> str:
    """What keeps a SLURM from being started here; empty where nothing does."""
    missing = [name for name in (*DAEMONS, "sbatch") if not _which(name)]
    if missing:
        return f"no {', '.join(missing)} here: {FIX}"
    return "" if os.geteuid() == 0 else "starting a SLURM needs root"


class Server:
    """While entered, ``conf`` is the configuration of a SLURM whose node is idle or at work."""

    def __enter__(self) -> "Server":
        _end_left_behind()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.conf = self.folder / "slurm.conf"
        self.env = {**os.environ, "SLURM_CONF": str(self.conf)}
        try:
            (self.folder / "owner").write_text(str(os.getpid()))
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        _end(self.folder)

    def run(self, *command: str) -> str:
        """What a command of SLURM says."""
        return subprocess.run(
            command, env=self.env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def empty(self) -> None:
        """Cancel every job, and wait until the node is idle again."""

        def is_empty() -> bool:
            if not self.run("squeue", "--noheader"):
                return True
            self.run("scancel", "--user=root")  # again: a job may just be queueing itself again
            time.sleep(0.5)
            return False

        self._wait(is_empty, "the queue is not empty")

    def _configure(self) -> None:
        values = {
            "folder": self.folder,
            "hostname": socket.gethostname(),
            "controller_port": _free_port(),
            "node_port": _free_port(),
        }
        for name in ("slurm.conf", "gres.conf"):
            (self.folder / name).write_text((HERE / name).read_text().format_map(_Filled(values)))
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        for n in range(8):  # SLURM wants character devices; these are /dev/null
            os.mknod(self.folder / f"gpu{n}", 0o666 | 0o020000, os.makedev(1, 3))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def _start(self) -> None:
        folder = self.folder
        self._run_daemon(
            "munged",
            "--force",  # its folder is root's alone, which it would have open to all
            f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        )
        self._run_daemon("slurmctld", "-f", str(self.conf))
        self._run_daemon("slurmd", "-f", str(self.conf), "-N", "localhost")
        self._wait(lambda: "idle" in self._states(), "the node is not idle")

    def _run_daemon(self, name: str, *options: str) -> None:
        log = self.folder / f"{name}.start"
        with open(log, "wb") as stream:  # a pipe would stay open as long as the daemon
            code = subprocess.call(
                [_which(name), *options], env=self.env, stdout=stream, stderr=subprocess.STDOUT
            )
        if code:
            raise RuntimeError(f"{name} ended with {code}: {log.read_text()}{self._logs()}")

    def _states(self) -> str:
        command = ("sinfo", "--noheader", "--format=%T")
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout

    def _wait(self, condition, fault: str, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{fault} after {seconds} s: {self._states()}{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        ends = [(log.name, log.read_text()[-2000:]) for log in sorted(self.folder.glob("*.log"))]
        return "".join(f"\n{name}:\n{text}" for name, text in ends)


class _Filled(dict):
    """Leaves braces that are no value's name as they are."""

    def __missing__(self, key: str) -> str:
        return f"{{{key}}}"


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _end_left_behind() -> None:
    """End the servers of test sessions that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            owner = int((folder / "owner").read_text())
            if not Path(f"/proc/{owner}").exists():
                _end(folder)


def _end(folder: Path) -> None:
    """Stop the daemons that this folder's pid files name, those and no others, and delete it."""
    if (folder / "slurmctld.pid").exists():  # its jobs' processes end with slurmd's step daemons
        env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        with suppress(OSError, subprocess.TimeoutExpired):
            command = ["scancel", "--user=root", "--signal=KILL", "--full"]
            subprocess.run(command, env=env, capture_output=True, timeout=10)
    for name in DAEMONS:
        with suppress(OSError, ValueError):
            pid = int((folder / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if str(folder).encode() not in command:
                continue  # the number is another process's by now
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if not Path(f"/proc/{pid}").exists():
                    break
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if fault := why_not():
        sys.exit(fault)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Server() as server, suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={server.conf}", flush=True)
        signal.pause()
