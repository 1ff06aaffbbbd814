"""The rows of the classification protocols in the list of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocols import Protocol

NAMES = ("knn", "linear", "semisup_1pct", "semisup_10pct", "finetune_cls")
TASKS = ("knn", "linear", "finetune")  # what a trial does
SMALL = ("cifar10", "cifar100", "cub200", "cars", "aircraft", "pets", "folder", "voc_objects")
ACCURACY = ("cls/top1", "cls/top5", "cls/mean_class")
IMAGENET = ("imagenet/train", "imagenet/val")
MILLIONS = 86.0  # parameters of the largest backbone, ViT-B


def protocols() -> tuple[Protocol, ...]:
    """The five protocols. A function: the list that they go into imports this file."""
    from ..protocols import Protocol

    return (
        Protocol(
            name="knn",
            title="ImageNet k-NN on frozen features, k 10, 20, 100, 200, temperature 0.07",
            configs={"last": "knn.yaml", "stages": "knn_stages.yaml"},
            metrics=("knn/top1", "knn/top5"),
            datasets=IMAGENET,
            parameters=0.0,  # nothing is trained
        ),
        Protocol(
            name="linear",
            title="ImageNet linear classifier on frozen features, 100 epochs",
            configs={"dino": "linear_dino.yaml", "moco": "linear_moco.yaml"},
            metrics=("linear/top1", "linear/top5"),
            datasets=IMAGENET,
            parameters=17.0,  # eight classifiers of 1000 classes on 2048 channels
        ),
        *(
            Protocol(
                name=f"semisup_{share}pct",
                title=f"ImageNet fine-tuning with {share} % of the labels",
                configs={"": f"semisup_{share}pct.yaml"},
                metrics=ACCURACY,
                datasets=IMAGENET,
                parameters=MILLIONS,
            )
            for share in (1, 10)
        ),
        Protocol(
            name="finetune_cls",
            title="fine-tuning on a small data set, 20k steps, rate and decay chosen on a part",
            configs={name: f"finetune_cls_{name}.yaml" for name in SMALL},
            metrics=ACCURACY,
            datasets=SMALL,
            parameters=MILLIONS,
        ),
    )
