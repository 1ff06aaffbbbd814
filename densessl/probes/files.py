"""The files of two folders that belong together, by their names."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from densessl.core.errors import InputError, nearest
from densessl.core.files import walk
from densessl.core.names import one_line
from densessl.decoding import is_image

SHOWN = 3  # files that a message names
IMAGE_SUFFIX, MASK_SUFFIX = "--image-suffix", "--mask-suffix"  # as commands call the options


def matched(
    images: Path, masks: Path, image_suffix: str, mask_suffix: str
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and label images by their common names."""
    labels = _files(masks, mask_suffix, "label images", _is_png)
    paths = {os.path.realpath(path) for path in labels.values()}
    pictures = _files(images, image_suffix, "images", is_image, paths)
    if lone := sorted(set(pictures) - set(labels)):
        raise _without_mask(lone, pictures, labels, masks, image_suffix, mask_suffix)
    if extra := sorted(set(labels) - set(pictures)):
        logging.getLogger("densessl").info(
            "%s: %d label images have no image in %s and are left out: %s",
            one_line(masks),
            len(extra),
            one_line(images),
            some([labels[name] for name in extra]),
        )
    return pictures, {name: labels[name] for name in pictures}


def _is_png(name: str) -> bool:
    return name.lower().endswith(".png")


def _files(folder: Path, suffix: str, what: str, wanted, but=frozenset()) -> dict[str, Path]:
    """The files below ``folder`` by their paths without ``suffix`` and that of their kind."""
    if not folder.is_dir():
        beside = [each.name for each in folder.parent.iterdir()] if folder.parent.is_dir() else []
        meant = nearest(folder.name, beside)
        hint = f". Did you mean '{one_line(folder.with_name(meant))}'?" if meant else ""
        raise InputError(f"the folder of {what} {one_line(folder)} is not there{hint}")
    found: dict[str, Path] = {}
    others: list[Path] = []

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list {one_line(error.filename)}: {error.strerror}")

    for directory, _, files in walk(folder, refuse):
        for file in sorted(files):
            path = Path(directory, file)
            stem = path.stem
            if file.startswith(".") or not wanted(file) or not stem.endswith(suffix):
                others.append(path)
                continue
            if but and os.path.realpath(path) in but:
                continue
            name = os.path.join(os.path.relpath(directory, folder), stem.removesuffix(suffix))
            name = os.path.normpath(name)
            if name in found:
                first, second = one_line(found[name]), one_line(path)
                raise InputError(f"{first} and {second} have the same name; it must be one")
            found[name] = path
    if not found:
        ends = f" with names that end in '{suffix}'" if suffix else ""
        there = f"; it holds {some(others)}" if others else ""
        needed = " (PNG files: JPEG would change the numbers)" if wanted is _is_png else ""
        raise InputError(f"{one_line(folder)} holds no {what}{needed}{ends}{there}")
    return found


def _without_mask(lone, pictures, labels, masks: Path, image_suffix, mask_suffix) -> InputError:
    """Which images have no label image, and, if others of like names are there, what to give."""
    hint = f"; it holds {some([labels[name] for name in sorted(labels)])}"
    if ends := _ends(lone, labels):
        of_image, of_mask = ends[0] + image_suffix, ends[1] + mask_suffix
        options = f"{IMAGE_SUFFIX} {of_image} " * bool(of_image)
        options += f"{MASK_SUFFIX} {of_mask}" * bool(of_mask)
        hint = f"; with {options.strip()} all have one"
    shown = some([pictures[name] for name in lone])
    return InputError(
        f"{len(lone)} of {len(pictures)} images have no label image in {one_line(masks)} (a PNG of "
        f"the same name): {shown}{hint}"
    )


def _ends(images: Sequence[str], labels: Mapping[str, Path]) -> tuple[str, str] | None:
    """What the names of images and of label images end in, if without that each has its own.

    An image's ending begins with '_', '-' or '.'.
    """
    first = images[0]
    cuts = [n for n in range(len(first)) if first[n] in "_-." and n > first.rfind(os.sep) + 1]
    for cut in (len(first), *reversed(cuts)):
        of_image = first[cut:]
        for name in sorted(name for name in labels if name.startswith(first[:cut])):
            of_mask = name[cut:]
            if all(
                image.endswith(of_image) and image.removesuffix(of_image) + of_mask in labels
                for image in images
            ):
                return of_image, of_mask
    return None


def some(paths: Sequence[Path]) -> str:
    shown = ", ".join(map(one_line, paths[:SHOWN]))
    return shown + (", …" if len(paths) > SHOWN else "")
