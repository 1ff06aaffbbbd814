"""The verbs as functions: the errors of the command line, and records as a table."""

import sys
from pathlib import Path

import pytest

import densessl
from densessl import EnvironmentLacks, InputError
from densessl.d2_transfer import results as records


def record(folder: Path, seed: int, **metrics: float) -> None:
    folder.mkdir(parents=True)
    values = {"path": "w.pkl", "sha256": "ab"}
    made = records.Record(
        method="setsim",
        weights=values,
        pretrain={"epochs": 200},
        protocol="voc_det_c4",
        variant="",
        seed=seed,
        metrics=metrics,
        config_sha256="0",
        versions={},
        started=records.now(),
        finished=records.now(),
    )
    records.save(folder, made)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: densessl.run.pretrain("moco_v3"), "moco_v3"),
        (lambda: densessl.run.pretrain(data_pth="x"), "unknown option 'data_pth'.*'data_path'"),
        (lambda: densessl.run.pretrain(), "DATA.PATH is empty"),
        (lambda: densessl.run.pretrain(seed=-1, data_path="."), "SEED is -1"),
        (lambda: densessl.run.pretrain(data_path="no/such"), "no/such does not exist"),
        (lambda: densessl.convert("no.pth", "w.pth"), "no.pth does not exist"),
        (lambda: densessl.transfer("random", "voc_det", "out"), "'voc_det'"),
        (lambda: densessl.transfer("random", "knn", "out", trails=3), "'trails'.*'trials'"),
        (lambda: densessl.transfer("random", "voc_det_c4", "o", trials=0), "at least 1"),
        (
            lambda: densessl.transfer("random", "voc_det_c4", "o", overrides={"SOLVER.BASE_RL": 1}),
            "SOLVER.BASE_RL.*SOLVER.BASE_LR",
        ),
    ],
)
def test_wrong_input_is_one_message_and_leaves_nothing(tmp_path, monkeypatch, call, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        call()
    assert list(tmp_path.iterdir()) == []


def test_records_as_a_table(tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    record(tmp_path / "a" / "trial_1", 1, **{"bbox/AP": 50.0})
    record(tmp_path / "a" / "trial_2", 2, **{"bbox/AP": 54.0, "bbox/AP50": 80.0})
    table = densessl.results(tmp_path)
    assert table.groupby("method")["bbox/AP"].mean().to_dict() == {"setsim": 52.0}
    assert table["seed"].tolist() == [1, 2] and table["bbox/AP50"].isna().tolist() == [True, False]
    assert table["pretrain/epochs"].tolist() == [200, 200]
    with pytest.raises(InputError, match="no such folder"):
        densessl.results(tmp_path / "b")


def test_without_pandas_the_fix_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    record(tmp_path / "trial_1", 1, **{"bbox/AP": 50.0})
    with pytest.raises(EnvironmentLacks, match="pip install 'pandas>=2'"):
        densessl.results(tmp_path)
