"""``plot labels``: which records become which points of a curve over the share of labels."""

import pytest
import yaml

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.plots import label_efficiency, main
from densessl.d2_transfer.plots.trials import Choice


@pytest.fixture
def trial(tmp_path):
    """A function that writes a trial of a pretraining at an amount of labels."""

    def write(method, seed, value, labels=None):
        amount = (labels or {}).get("amount", "")
        own = {"SEED": seed, "DATASETS": {"LABELS": amount}}
        place = tmp_path / f"{method}_{amount}" / f"trial_{seed}"
        record = results.Record(
            method=method,
            weights={"path": method, "sha256": method.encode().hex().ljust(64, "0")},
            pretrain={},
            protocol="voc_det_c4",
            variant="",
            seed=seed,
            metrics={"bbox/AP": value, "bbox/AP50": value + 20},
            config_sha256=results.config_fingerprint(own),
            versions={},
            started=results.now(),
            finished=results.now(),
            labels=labels or {},
        )
        results.save(place, record)
        (place / "config.yaml").write_text(yaml.safe_dump(own))

    return write


def share(percent):
    return {"amount": f"{percent}%", "percent": float(percent), "seed": 0}


def by_labels(tmp_path, **choice):
    return label_efficiency.by_labels(results.collect([tmp_path]), Choice(**choice))


def test_a_pretraining_is_a_line_and_all_labels_are_its_last_point(tmp_path, trial):
    for seed in (1, 2):
        for percent in (1, 10):
            trial("moco", seed, percent + seed, share(percent))
        trial("moco", seed, 40 + seed)
    trial("densecl", 1, 44.0)
    (panel,) = by_labels(tmp_path).panels
    lines = {line.label: line for line in panel.lines}
    moco, other = lines["moco"], lines["densecl"]
    assert (moco.x, moco.y, moco.counts) == ([1, 10, 100], [2.5, 11.5, 41.5], [2, 2, 2])
    assert (other.x, other.y) == ([100], [44])
    assert panel.log == {1: "1", 10: "10", 100: "100"}
    assert by_labels(tmp_path, metric="bbox/AP50").panels[0].lines[0].y[-1] in (61.5, 64)


def test_a_number_whose_share_is_not_known_is_left_out(tmp_path, trial, caplog):
    trial("moco", 1, 20.0, {"amount": "300", "seed": 0})
    with pytest.raises(InputError, match="no record tells the share"):
        by_labels(tmp_path)
    trial("moco", 1, 30.0)
    assert by_labels(tmp_path).panels[0].lines[0].x == [100]
    assert "1 of 2 records are left out" in caplog.text


def test_trials_that_have_no_average_are_refused(tmp_path, trial):
    trial("moco", 1, 20.0, share(10))
    trial("moco", 2, 21.0, share(10) | {"amount": "10.0%"})  # another config
    with pytest.raises(InputError, match="were not run with one config"):
        by_labels(tmp_path)


def test_the_verb_draws_it(tmp_path, trial):
    for percent in (1, 100):
        trial("moco", 1, 20.0 + percent / 10, share(percent))
    out = tmp_path / "labels.svg"
    assert main.main(["labels", str(tmp_path), "-o", str(out)]) == 0
    text = out.read_text()
    assert "training images with labels (%)" in text and "moco" in text
