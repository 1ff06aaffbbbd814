"""What docs/evidence.md calls its data and its measures."""

TITLES = {"scenes": "Scenes", "photos": "Photographs"}
PROBES = {
    "linear": "linear layer",
    "knn": "nearest neighbours",
    "overcluster": "clusters",
    "finetuning": "FCN, fine-tuned",
}
NOT_MEASURED = {
    "scenes": "Not measured yet.",
    "photos": "Not measured yet: that takes `PHOTOS=DIR CAMVID=DIR`.",
}
