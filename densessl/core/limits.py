"""What the operating system grants: cores, memory, and to loader processes shared memory and
handles."""

import ctypes
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import EnvironmentLacks

SHARED = Path("/dev/shm")
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
PREFETCH = 2  # batches that each loader process has ready, as PyTorch's default
PER_WORKER = 4  # handles of this process for each loader process: pipes and its end
SPARE = 16  # handles for files, sockets and libraries
AMPLE = 512  # more than that is not worth asking for

OUT = re.compile("can't allocate memory|cannot allocate memory|bad_alloc", re.IGNORECASE)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, for what it allocates next.

    glibc gives large blocks back to the kernel, and a step that allocates what the one before freed
    gets new pages, each to be cleared: a tenth of the processor time of a small step. Elsewhere,
    and where the environment says what glibc shall do, nothing changes.
    """
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(AttributeError, OSError):  # another C library
        tune = ctypes.CDLL(None).mallopt
        tune(trim_threshold, 2**31 - 1)
        tune(mmap_threshold, 2**25)  # the largest that it takes


def check_loading(
    batch_bytes: int, tensors: int, workers: int, processes: int, option: str
) -> None:
    """Raise EnvironmentLacks where ``workers`` loader processes cannot hand over their batches.

    A batch has ``batch_bytes`` in so many ``tensors``; each of ``processes`` on this machine has
    its own loader processes. ``option`` names the number of workers in messages. Raises the soft
    limit of open files where the hard one allows it.
    """
    if not workers:
        return
    held = PREFETCH * workers + 1  # one is being used
    _check_shared_memory(batch_bytes, held * processes, workers, option)
    _check_handles(PER_WORKER * workers + (PREFETCH + 2) * tensors, option)


def shared_memory() -> tuple[int, int] | None:
    """The free and all bytes of /dev/shm; None where there is none, or it has no limit."""
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return None
    if not found.f_blocks:
        return None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _check_shared_memory(batch: int, held: int, workers: int, option: str) -> None:
    found = shared_memory()
    if found is None or batch * held <= found[0]:
        return
    raise EnvironmentLacks(
        f"{SHARED} has {size(found[0])} free, and {option} {workers} needs {size(batch * held)} of "
        f"it: {held} batches of {size(batch)}. {more_shared_memory(batch * held, option)}"
    )


def more_shared_memory(needed: int, option: str) -> str:
    """What to do where loader processes need ``needed`` bytes of shared memory (0: not known)."""
    gib = max(-(-needed * 5 // 4 // 2**30), 1)
    return (
        f"Enlarge it (Docker: --shm-size {gib}g, or --ipc host; else: mount -o remount,size={gib}g "
        f"{SHARED}), or load without loader processes: {option} 0"
    )


def handles() -> tuple[int, int, int]:
    """The file handles that this process has open, and how many it may: soft and hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        count = len(os.listdir("/proc/self/fd"))
    except OSError:
        count = 3
    unlimited = 1 << 30
    soft, hard = (unlimited if n == resource.RLIM_INFINITY else n for n in (soft, hard))
    return count, soft, hard


def _check_handles(needed: int, option: str) -> None:
    count, soft, hard = handles()
    if soft < hard and soft < count + needed + AMPLE:
        soft = min(hard, count + needed + AMPLE)
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
    if soft < count + needed + SPARE:
        raise EnvironmentLacks(
            f"this process may have {soft} files open and has {count}; the loader processes take "
            f"{needed} more. {more_handles(count + needed + SPARE, option)}"
        )


def more_handles(needed: int, option: str) -> str:
    """What to do where ``needed`` file handles are too many for the limit."""
    return (
        f"Allow more (ulimit -n {max(needed, 1024)}; Docker: --ulimit nofile=4096), or load "
        f"without loader processes: {option} 0"
    )


def size(count: float) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


@contextmanager
def enough_memory(where: Callable[[], str]) -> Iterator[None]:
    """In this block an error for want of the machine's memory becomes EnvironmentLacks.

    ``where``: what was being done. A GPU's memory is that of gpu_memory.py. Where the kernel kills
    for it, other processes tell (peers.py, loader.py).
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT.search(str(error)):
            raise
        allows, count = memory()
        raise EnvironmentLacks(
            f"{where()}: memory ran out; {allows} allows {size(count)}. What is saved stays whole. "
            "Allow or free more, or take fewer loader processes or a smaller batch; the same "
            "command resumes from the last checkpoint"
        ) from None


def memory() -> tuple[str, int]:
    """The smallest limit of this process's memory in bytes, and what sets it."""
    found = [(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "this machine")]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        found.append((soft, "ulimit -v"))
    for folder, kind in _cgroups():
        with suppress(OSError, ValueError):  # 'max': none
            limit = int((folder / kind.limit).read_text())
            found.append((limit, "its cgroup (of a container, or of SLURM)"))
    count, what = min(found)
    return what, count


def available_memory() -> int | None:
    """Bytes that this process may still take, as far as the system tells them, swap included.

    Of a container or a job of SLURM no more than its limit leaves; files that the system keeps in
    memory there, and gives up when it must, are not counted as taken.
    """
    found = []
    with suppress(OSError, KeyError, ValueError):
        lines = _numbers(PROC / "meminfo")
        found.append((lines["MemAvailable:"] + lines["SwapFree:"]) * 1024)
    for folder, kind in _cgroups():
        with suppress(OSError, KeyError, ValueError):
            limit, used = (int((folder / file).read_text()) for file in (kind.limit, kind.used))
            dropped = _numbers(folder / "memory.stat")[kind.dropped]
            found.append(max(limit - used + dropped, 0))
    if not found:
        with suppress(OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


class _Cgroup(NamedTuple):
    """The files of a version of control groups, and what its memory.stat calls idle files."""

    limit: str
    used: str
    dropped: str


FIRST = _Cgroup("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
SECOND = _Cgroup("memory.max", "memory.current", "inactive_file")


def _cgroups() -> Iterator[tuple[Path, _Cgroup]]:
    """The folders of the control groups that may limit this process's memory, with their kind.

    A limit holds for the groups below it: SLURM's is that of a job, whose tasks have groups without
    one. A container may see its own group as the root.
    """
    with suppress(OSError):
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, kind = (CGROUPS / "memory", FIRST) if controllers else (CGROUPS, SECOND)
            own = root / path.lstrip("/")
            for folder in (own, *own.parents):
                yield folder, kind
                if folder == root:
                    break


def _numbers(file: Path) -> dict[str, int]:
    """A file of the system with a word and a number on each line."""
    lines = file.read_text(encoding="ascii").splitlines()
    return {name: int(number) for name, number, *_ in map(str.split, lines)}
