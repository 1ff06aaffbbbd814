"""Every paper's table in every format, against the renderings in ``tests/golden/tables``.

``python tests/d2_transfer/test_tables_golden.py`` writes them anew; look at what changed.
"""

import re
from pathlib import Path

import pytest

from densessl.d2_transfer.results import Record
from densessl.d2_transfer.tables import from_paper, layouts
from densessl.d2_transfer.tables.render import FORMATS

GOLDEN = Path(__file__).parents[1] / "golden" / "tables"
SUFFIX = {"terminal": "txt", "md": "md", "latex": "tex", "html": "html", "csv": "csv"}
WITH_RECORDS = ("setsim/table4", "setsim/table6", "houghcl/voc_det")


def test_no_rendering_is_left_over():
    names = {f"{name.replace('/', '_')}" for name in layouts.names()}
    names |= {f"{name.replace('/', '_')}_with_records" for name in WITH_RECORDS}
    files = {f"{name}.{suffix}" for name in names for suffix in SUFFIX.values()}
    assert {file.name for file in GOLDEN.iterdir()} == files


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", layouts.names())
def test_the_published_table_is_as_it_was(name, form):
    assert rendered(name, form) == golden(name, form).read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", WITH_RECORDS)
def test_the_table_with_trials_is_as_it_was(name, form):
    text, before = rendered(name, form, RECORDS), golden(name, form, True).read_text("utf-8")
    if form == "csv":  # full precision: the last digits are the libraries'
        assert list(map(rounded, text.splitlines())) == list(map(rounded, before.splitlines()))
    else:
        assert text == before


def rounded(line):
    """A line of CSV with its numbers to nine decimals."""
    return re.sub(r"-?\d+\.\d+(e-\d+)?", lambda found: f"{float(found[0]):.9f}", line)


def golden(name, form, with_records=False):
    more = "_with_records" if with_records else ""
    return GOLDEN / f"{name.replace('/', '_')}{more}.{SUFFIX[form]}"


def rendered(name, form, records=()):
    return FORMATS[form]([from_paper.build(layouts.find(name), records)[0]])


def trials(method, config, protocol, values, variant="", **facts):
    """Records whose metrics differ from ``values`` by −0.2, 0.1, 0.3, … (made up)."""
    at = {"dataset": "imagenet/train", "images": 1281167, "epochs": 200.0} | facts
    pretrain = {} if method == "random" else at | {"config_name": config}
    return [
        Record(
            method=method,
            weights={"path": config, "sha256": "" if method == "random" else config[:1] * 64},
            pretrain=pretrain,
            protocol=protocol,
            variant=variant,
            seed=seed,
            metrics={name: value + shift for name, value in values.items()},
            config_sha256="",
            versions={},
            started="2026-01-01T00:00:00+00:00",
            finished="2026-01-01T00:00:00+00:00",
        )
        for seed, shift in enumerate((-0.2, 0.1, 0.3, 0.05, -0.15), start=1)
    ]


def box(ap, ap50, ap75, task="bbox"):
    return {f"{task}/AP": ap, f"{task}/AP50": ap50, f"{task}/AP75": ap75}


VOC, FPN, KEYPOINTS = "voc_det_c4", "coco_mask_fpn_1x", "coco_keypoint_fpn_1x"
MOCO, SETSIM = "moco_v2_r50_in1k_200ep", "setsim_r50_in1k_200ep"
RECORDS = [
    *trials("random", "random", VOC, box(33.5, 59.9, 33.0))[:1],
    *trials("moco", MOCO, VOC, box(57.0, 82.4, 63.5)),
    *trials("setsim", SETSIM, VOC, box(59.4, 83.2, 66.6)),
    *trials("mine.py:A_b", "", VOC, box(59.9, 83.5, 66.9)),
    *trials("moco", MOCO, FPN, box(39.0, 59.4, 42.6) | box(35.4, 56.1, 37.8, "segm"), "moco2fc"),
    *trials("setsim", SETSIM, FPN, box(40.0, 60.4, 43.6), "moco2fc")[:3],
    *trials("setsim", SETSIM, FPN, box(41.0, 61.4, 44.6), "4conv1fc"),
    *trials("setsim", SETSIM, KEYPOINTS, box(66.5, 87.6, 72.3, "keypoints"))[:1],
]


def write():
    """Write all renderings anew."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file in GOLDEN.iterdir():
        file.unlink()
    for form in FORMATS:
        for name in layouts.names():
            golden(name, form).write_text(rendered(name, form), encoding="utf-8")
        for name in WITH_RECORDS:
            file = golden(name, form, with_records=True)
            file.write_text(rendered(name, form, RECORDS), encoding="utf-8")


if __name__ == "__main__":
    write()
