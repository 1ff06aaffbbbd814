"""How much memory the system grants, read from files as a machine, a container and SLURM have; and
what becomes of memory that is freed."""

import platform
import subprocess
import sys

import pytest

from densessl.core import limits

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(cgroup, groups)``: 8 GB free and 1 GB of swap; of each group its files."""
    proc, groups_at = tmp_path / "proc", tmp_path / "cgroup"
    monkeypatch.setattr(limits, "PROC", proc)
    monkeypatch.setattr(limits, "CGROUPS", groups_at)

    def make(cgroup, groups):
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(cgroup)
        (proc / "meminfo").write_text(
            f"MemTotal:  99 kB\nMemAvailable: {8 * GB // 1024} kB\nSwapFree: {GB // 1024} kB\n"
        )
        for folder, files in groups.items():
            (groups_at / folder).mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (groups_at / folder / name).write_text(f"{text}\n")

    return make


def second(limit, used, cached=0):
    stat = f"anon 12\ninactive_file {cached}\nactive_file 7"
    return {"memory.max": limit, "memory.current": used, "memory.stat": stat}


def first(limit, used, cached=0):
    stat = f"cache 3\ntotal_inactive_file {cached}"
    files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used}
    return files | {"memory.stat": stat}


def test_without_a_limit_it_is_the_machines_with_its_swap(machine):
    machine("0::/user\n", {"user": second("max", 2 * GB)})
    assert limits.available_memory() == pytest.approx(9 * GB, rel=1e-6)


def test_the_limit_of_a_job_holds_for_its_tasks_which_have_none(machine):
    """SLURM's: files that the system can drop are not counted as taken."""
    task = "job_1/step_0/user/task_0"
    groups = {"job_1": second(4 * GB, 3 * GB, 2 * GB), task: second("max", GB)}
    machine(f"0::/{task}\n", groups)
    assert limits.available_memory() == 3 * GB
    assert limits.memory() == ("its cgroup (of a container, or of SLURM)", 4 * GB)


def test_of_the_first_version_only_the_group_of_memory_counts(machine):
    groups = {"memory": first(2**63, 0), "memory/box": first(2 * GB, GB)}
    machine("5:memory:/box\n4:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n", groups)
    assert limits.available_memory() == GB
    assert limits.memory()[1] == 2 * GB


def test_a_container_sees_its_own_group_as_the_root(machine):
    machine("0::/docker/0a1b\n", {"": second(GB, GB + 5)})
    assert limits.available_memory() == 0


def test_where_the_system_tells_nothing_it_is_all_of_the_machines(machine):
    assert limits.available_memory() == limits.memory()[1] > 2**20


FREED = """
import resource, torch
from densessl.core import limits

limits.keep_freed_memory()
x = torch.ones(500_000)
for _ in range(5):
    several = [x + 1 for _ in range(8)]
    several.clear()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    several = [x + 1 for _ in range(8)]
    several.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_that_is_freed_is_kept():
    command = [sys.executable, "-c", FREED]
    environment = {"PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2000  # 160 tensors of 490 pages; without it 3,800 to 77,500
