"""What VOC's semantic segmentation reads beside VOC2012: SBD, and the augmented set made of both.

As with the real ones, SBD (``benchmark_RELEASE/dataset``) holds masks without void of every
training image and of some that VOC evaluates on; ``voc_aug`` is what ``densessl prepare voc_aug``
makes of SBD and VOC2012, so that the protocol can run at once.
"""

import io
from pathlib import Path

import numpy as np
from scipy.io import savemat

from densessl.core import files

from . import store

SBD = Path("benchmark_RELEASE", "dataset")
AUGMENTED = Path("voc_aug")
HEADER = b"MATLAB 5.0 MAT-file, DenseSSL scenes"
HEADER_BYTES = 116  # of text, before what a reader looks at


def has_voc_mask(number: int) -> bool:
    """Whether VOC2012's segmentation list for training has this training scene: every other one."""
    return number % 4 == 2


def is_in_sbd(split: str, number: int) -> bool:
    """Whether SBD has a scene: all of VOC2012's training, a quarter of its validation."""
    return split == "train" or number % 4 == 1


def write_labels(
    root: Path, split: str, number: int, name: str, exact: np.ndarray, with_void: np.ndarray
) -> None:
    """Write SBD's mask and the augmented set's of a scene of VOC2012: class numbers [S, S]."""
    if is_in_sbd(split, number):
        path = root / SBD / "cls" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mat(exact))
    voc_has_it = split == "val" or has_voc_mask(number)
    labels = with_void if voc_has_it else exact
    store.save_png(root / AUGMENTED / "labels" / f"{name}.png", labels)


def mat(labels: np.ndarray) -> bytes:
    """SBD's file of a mask: a MATLAB struct ``GTcls`` with the field ``Segmentation``."""
    present = np.setdiff1d(labels, 0).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    struct = {"Segmentation": labels, "CategoriesPresent": present}
    savemat(stream, {"GTcls": struct}, do_compression=True)
    return HEADER.ljust(HEADER_BYTES) + stream.getvalue()[HEADER_BYTES:]  # theirs tells the time


def write_lists(root: Path, train: dict[int, str], val: dict[int, str]) -> None:
    """Write the lists of VOC2012's segmentation, of SBD and of the augmented set.

    ``train``, ``val``: the scenes of VOC2012, number to name.
    """
    names, unseen = list(train.values()), list(val.values())
    segmented = [name for number, name in train.items() if has_voc_mask(number)]
    evaluated = [name for number, name in val.items() if is_in_sbd("val", number)]
    segmentation = Path("VOC2012", "ImageSets", "Segmentation")
    lists = {
        segmentation / "train.txt": segmented,
        segmentation / "val.txt": unseen,
        segmentation / "trainval.txt": segmented + unseen,
        SBD / "train.txt": names[::2],
        SBD / "val.txt": names[1::2] + evaluated,
        AUGMENTED / "train_aug.txt": names,
        AUGMENTED / "val.txt": unseen,
    }
    for path, listed in lists.items():
        files.write_text(root / path, "".join(f"{name}\n" for name in listed))
