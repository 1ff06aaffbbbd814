"""Weights as a folder that travels: what timm's ``local-dir:`` and the Hugging Face Hub take.

``model.safetensors``, ``config.json`` as timm's models on the Hub have it, and ``README.md``, the
model card: method, data, what was measured (from trial records alone), licence.
"""

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from densessl.core import files
from densessl.core.errors import InputError
from densessl.weight_files import images, vit
from densessl.weight_files.channels import COLOURS
from densessl.weight_files.reading import read_checkpoint
from densessl.weight_files.recognise import from_file

from .. import results
from .conversion import convert, with_images
from .report import HUB, Report

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def write_folder(
    checkpoint: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    licence: str = "",
    records: Sequence[str | os.PathLike] = (),
    force: bool = False,
    **options: Any,
) -> Report:
    """Write the backbone in ``checkpoint`` with a model card to ``folder``, proved as ever.

    Args:
        licence: as the Hub spells it (``apache-2.0``); empty: the card says that it is unknown.
        records: folders of trials; what these very weights measured there goes into the card.
        force: replace files that are there with other contents.
        options: ``source``, ``branch``, ``method``, … of :func:`convert`.

    Raises:
        InputError: as :func:`convert` does; for weights that timm's network cannot express (BGR
            images, the stride in the 1×1 convolutions), and where no record is of these weights.
    """
    checkpoint, folder = Path(checkpoint), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder} is a file; --to hub writes a folder")
    _check_images(checkpoint, options)
    measured = _measured(records, files.sha256(checkpoint), checkpoint)
    with files.unmade_when_refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
        report = convert(checkpoint, folder / WEIGHTS, target="safetensors", force=force, **options)
    facts = read_checkpoint(folder / WEIGHTS).densessl
    config = json.dumps(_config(report, facts), indent=2) + "\n"
    for name, text in ((CONFIG, config), (CARD, _card(report, licence, measured))):
        file = folder / name
        if file.exists() and not force and files.read_text(file) != text:
            raise InputError(f"{file} exists with other contents; --force replaces it")
        files.write_text(file, text)
    return replace(report, out=str(folder), target=HUB)


def _check_images(checkpoint: Path, options: dict[str, Any]) -> None:
    """InputError for weights that would compute something else in timm's network."""
    _, found = from_file(checkpoint, options.get("source", "auto"), options.get("branch"))
    given = [options.get(name) for name in ("mean", "std", "channel_order", "stride_in_1x1")]
    found = with_images(found, *given)
    if found.is_timm:
        raise InputError(
            f"{checkpoint} holds {found.title}; --to hub is for torchvision's ResNets and DINO's "
            "ViTs, whose every tensor is pretrained; give it --to timm or --to safetensors"
        )
    if found.normalization["channel_order"] == "BGR" or found.stride_in_1x1:
        raise InputError(
            f"{checkpoint} wants {found.normalization['channel_order']} images and has the stride "
            f"in the {'1x1' if found.stride_in_1x1 else '3x3'} convolutions; --to hub is for RGB "
            "and 3x3, which is all that timm's network of that name can be"
        )


def _measured(
    folders: Sequence[str | os.PathLike], sha256: str, checkpoint: Path
) -> dict[tuple[str, str], list[float]]:
    """What the records of these weights say: protocol and metric, and the trials' values."""
    if not folders:
        return {}
    found: dict[tuple[str, str], list[float]] = {}
    for record in results.found_in(folders):
        if record.weights["sha256"] == sha256 and not record.mini:
            name = " ".join(filter(None, (record.protocol, record.variant)))
            for metric, value in record.metrics.items():
                if math.isfinite(value) and results.class_of(metric) is None:
                    found.setdefault((name, metric), []).append(value)
    if not found:
        raise InputError(
            f"no trial in or below {', '.join(map(str, folders))} is of {checkpoint} (SHA-256 "
            f"{sha256[:12]}…), miniatures left aside; leave --results out, or give others"
        )
    return found


def _config(report: Report, facts: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` as timm's models on the Hub have it."""
    normal = facts["normalization"]
    if report.depth is None:
        size = vit.SIZES[report.network]
        architecture, width, pool = size.timm, size.width, "token"
        first, classifier = "patch_embed.proj", "head"
    else:
        architecture, pool = report.network, "avg"
        width = 2048 if report.depth >= 50 else 512
        first, classifier = "conv1", "fc"
    of_channels = {} if report.channels == COLOURS else {"in_chans": report.channels}
    return {
        "architecture": architecture,
        **({"model_args": of_channels} if of_channels else {}),
        "num_classes": 0,
        "num_features": width,
        "global_pool": pool,
        "pretrained_cfg": {
            "tag": report.method,
            "num_classes": 0,
            "input_size": [report.channels, vit.IMAGE, vit.IMAGE],
            "mean": [value / 255 for value in normal["pixel_mean"]],
            "std": [value / 255 for value in normal["pixel_std"]],
            "first_conv": first,
            "classifier": classifier,
        },
    }


def _card(report: Report, licence: str, measured: dict[tuple[str, str], list[float]]) -> str:
    """The model card; its head is what the Hub reads."""
    head = {"license": licence or "unknown", "library_name": "timm"}
    tags = ["image-feature-extraction", "timm", "self-supervised-learning", report.method]
    facts = ", ".join(f"{key} {value}" for key, value in report.pretrain.items() if _plain(value))
    lines = [
        "---",
        *(f"{key}: {value}" for key, value in head.items()),
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {report.title}, {report.method}",
        "",
        "A backbone without a classifier, pretrained without labels.",
        "",
        f"- method: {report.method}{f' ({report.branch} branch)' if report.branch else ''}",
        f"- data: {facts or 'not stated by the checkpoint'}",
        f"- images: {report.images}, {images.source(report.images_by)}",
        f"- licence: {licence or 'not stated'}",
        f"- SHA-256 of the checkpoint: `{report.source_sha256}`",
        "",
        "The tensors are the checkpoint's bit for bit. DenseSSL, which converted it, ran both",
        "networks on the same input and found every stage equal.",
        "",
        "## Use",
        "",
        "```python",
        "import timm",
        "",
        f"network = {replace(report, out='.', target=HUB).next_command}  # this folder",
        "```",
        "",
        "## Measured",
        "",
    ]
    if not measured:
        return "\n".join([*lines, "Nothing has been recorded of these weights.", ""])
    rows = [
        f"| {protocol} | {metric} | {statistics.fmean(values):.2f} | {_deviation(values)} "
        f"| {len(values)} |"
        for (protocol, metric), values in sorted(measured.items())
    ]
    table = ["| protocol | metric | mean | standard deviation | trials |", "|:--|:--|--:|--:|--:|"]
    return "\n".join([*lines, *table, *rows, ""])


def _deviation(values: list[float]) -> str:
    return f"{statistics.stdev(values):.2f}" if len(values) > 1 else "–"


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) <= 40
