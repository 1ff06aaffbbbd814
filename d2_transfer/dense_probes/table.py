"""The rows of the dense probes in the list of all protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols import Protocol

TASKS = {  # what a trial does, in a line
    "linear_semseg": "a linear layer on frozen features of positions (batch norm before it)",
    "knn_semseg": "nearest labelled positions on frozen features, k 30, temperature 0.02",
    "overcluster": "clusters of frozen features of positions, matched to the classes",
}
OWN = "custom_semseg"
NAMES = (*TASKS, OWN)
DATASETS = {  # variant: training, test
    "voc": ("voc_2012_aug_semseg_train", "voc_2012_semseg_val"),
    "cityscapes": ("cityscapes_fine_sem_seg_train", "cityscapes_fine_sem_seg_val"),
    "ade20k": ("ade20k_sem_seg_train", "ade20k_sem_seg_val"),
    "camvid": ("camvid_sem_seg_train", "camvid_sem_seg_test"),
    "cocostuff27": ("coco_stuff27_train", "coco_stuff27_val"),
    "cocostuff15": ("coco_stuff15_train", "coco_stuff15_val"),
    "cocothings12": ("coco_things12_train", "coco_things12_val"),
}
OWN_DATASETS = ("custom_train", "custom_val")
OWN_TASKS = {"linear": "linear_semseg", "knn": "knn_semseg", "overcluster": "overcluster"}
METRICS = ("sem_seg/mIoU", "sem_seg/pACC")


def protocols() -> tuple[Protocol, ...]:
    """The four protocols. A function: the list that they go into imports this file."""
    from ..protocols import Protocol

    return (
        *(
            Protocol(
                name=task,
                title=title,
                configs={name: f"{task}_{name}.yaml" for name in DATASETS},
                metrics=METRICS,
                datasets=tuple(name for pair in DATASETS.values() for name in pair),
                parameters=0.0,  # no model is kept
            )
            for task, title in TASKS.items()
        ),
        Protocol(
            name=OWN,
            title="your own images and label images, the same three probes (see docs/data.md)",
            configs={variant: f"{OWN}_{variant}.yaml" for variant in OWN_TASKS},
            metrics=METRICS,
            datasets=OWN_DATASETS,
            parameters=0.0,
        ),
    )
