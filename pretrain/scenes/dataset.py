"""A whole set on disk: written in chunks by several processes, resumed after a stop.

While a set is being written, ``.unfinished`` in its folder holds what was asked for and a record
of each finished chunk; ``densessl_scenes.json`` comes last and says that the set is whole.
"""

import functools
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from densessl.core import files, pool
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.core.form import fault
from densessl.core.lock import locked
from densessl.core.progress import Bar

from . import ade20k, cityscapes, coco, lvis, panoptic, store, voc
from .generate import generate
from .labels import CLASSES

MARK = "densessl_scenes.json"
UNFINISHED = ".unfinished"
FORMAT = 5  # changes when the same arguments give other files
# What complete sets of older formats, otherwise the same, lack.
LACKS = {
    2: "coco/stuffthingmaps, lvis and coco/panoptic_*",
    3: "lvis and coco/panoptic_*",
    4: "coco/panoptic_*",
}
CHUNK = 20  # scenes between two records


@dataclass(frozen=True)
class Request:
    """What decides every byte of a set."""

    train: int
    val: int
    size: int
    seed: int
    format: int = FORMAT

    def chunks(self) -> list[tuple[str, int, int]]:
        """Every piece of work: split, first index, index after the last."""
        return [
            (split, first, min(first + CHUNK, count))
            for split, count in (("train", self.train), ("val", self.val))
            for first in range(0, count, CHUNK)
        ]

    def bytes(self) -> int:
        """About how much disk the set takes: measured at 64 to 512 pixels, rounded up."""
        return (self.train + self.val) * (80_000 + 3 * self.size**2)


def state(root: Path, request: Request) -> str:
    """ "new", "unfinished" or "complete"; InputError where ``root`` holds anything else."""
    if root.exists() and not root.is_dir():
        raise InputError(f"'{root}' is a file; DIR must be a folder or a new name")
    for name, found in ((MARK, "complete"), (f"{UNFINISHED}/request.json", "unfinished")):
        if (root / name).exists():
            _same_request(root / name, found, request)
            return found
    held = [path.name for path in root.iterdir()] if root.exists() else []
    if set(held) - {UNFINISHED}:
        raise InputError(
            f"'{root}' holds other files ({', '.join(sorted(held)[:3])}…) and nothing is ever "
            "overwritten; name a new or an empty folder"
        )
    return "new"


def _same_request(path: Path, found: str, request: Request) -> None:
    try:
        before = files.read_json(path)
        differ = [k for k, v in asdict(request).items() if before[k] != v]
        if found == "complete" and before["format"] in LACKS:
            differ.remove("format")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' is not a scenes file; name another folder") from error
    if differ:
        was = ", ".join(f"{key} {before[key]}" for key in differ)
        now = ", ".join(f"{key} {getattr(request, key)}" for key in differ)
        raise InputError(
            f"'{path.parent if found == 'complete' else path.parent.parent}' holds a {found} set "
            f"of other arguments ({was}; now {now}); name another folder"
        )


def lacks(root: Path) -> str | None:
    """The folder that a complete set, drawn by an older version, has not."""
    return LACKS.get(json.loads((root / MARK).read_text(encoding="utf-8"))["format"])


def check_disk(root: Path, request: Request) -> None:
    """EnvironmentLacks when the set would not fit on the disk of ``root``."""
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < request.bytes():
        raise EnvironmentLacks(
            f"the set needs about {request.bytes() / 2**30:.1f} GiB and the disk of '{there}' has "
            f"{free / 2**30:.1f} GiB left; free some, or name a folder on another disk"
        )


def write(root: Path, request: Request, workers: int) -> None:
    """Write the set, or what is missing of an unfinished one."""
    with locked(root / UNFINISHED / "lock", lambda _: f"another process is writing to '{root}'"):
        _write(root, request, workers)


def _write(root: Path, request: Request, workers: int) -> None:
    files.write_json(root / UNFINISHED / "request.json", asdict(request))
    chunks = request.chunks()
    todo = [chunk for chunk in chunks if _records(root, chunk) is None]
    left = sum(stop - first for _, first, stop in todo)
    total = request.train + request.val
    work = functools.partial(write_chunk, root, request)
    processes = min(workers, len(todo))
    with (
        Bar("scenes", total, start=total - left) as bar,
        pool.results(work, todo, processes, at_once=True, option="--workers") as written,
    ):
        try:
            for scenes in written:
                bar.advance(scenes)
        except OSError as error:
            raise EnvironmentLacks(f"the set cannot be written: {error}") from None
    _finish(root, request, chunks)


def _record_path(root: Path, chunk: tuple[str, int, int]) -> Path:
    return root / UNFINISHED / f"{chunk[0]}_{chunk[1]:07d}.json"


def _records(root: Path, chunk: tuple[str, int, int]) -> list[dict] | None:
    """What :func:`write_chunk` noted of its scenes; None where that is missing or damaged."""
    try:
        found = files.read_json(_record_path(root, chunk))
    except (OSError, ValueError):
        return None
    whole = fault(found, [{"number": int, "objects": [dict], "segments": [dict]}]) is None
    return found if whole and len(found) == chunk[2] - chunk[1] else None


def write_chunk(root: Path, request: Request, chunk: tuple[str, int, int]) -> int:
    """Write every file of some scenes, and then the record that they are there; their number."""
    split, first, stop = chunk
    records = [write_scene(root, request, split, index) for index in range(first, stop)]
    files.write_text(_record_path(root, chunk), json.dumps(records, separators=(",", ":")))
    return len(records)


def write_scene(root: Path, request: Request, split: str, index: int) -> dict:
    """Write one scene in every layout; the image is stored once and linked."""
    scene = generate(request.seed, index, request.size, split)
    number = store.number(split, index)
    jpeg = coco.image_path(root, split, number)
    store.save_jpeg(jpeg, scene.image)
    store.link(jpeg, root / "imagenet" / split / scene.main.category / jpeg.name)
    voc.write_image(root, split, number, scene, jpeg)
    cityscapes.write_image(root, split, number, scene)
    ade20k.write_image(root, split, number, scene, jpeg)
    coco.write_stuff(root, split, number, scene)
    segments = panoptic.write_image(root, split, number, scene)
    objects = coco.annotations(scene, number)
    return {"number": number, "objects": objects, "segments": segments}


def _finish(root: Path, request: Request, chunks: list[tuple[str, int, int]]) -> None:
    """Write what lists all scenes, then the mark of a whole set."""
    records: dict[str, list[dict]] = {"train": [], "val": []}
    for chunk in chunks:
        records[chunk[0]] += _records(root, chunk) or []
    for split, of_split in records.items():
        coco.write_json(root, split, request.size, of_split)
        panoptic.write_json(root, split, request.size, of_split)
        lvis.write_json(root, split, request.size, of_split)
    voc.write_lists(root, *([r["number"] for r in records[s]] for s in ("train", "val")))
    files.write_json(root / MARK, {**asdict(request), "classes": list(CLASSES)})
    shutil.rmtree(root / UNFINISHED)
