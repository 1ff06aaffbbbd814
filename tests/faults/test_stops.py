"""A stop while a verb works: exit code 75, nothing is half written, the same command resumes."""

from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2

import pytest
import torch

CONVERT = "densessl.d2_transfer.convert"
REPORT = "densessl.d2_transfer.report"


@pytest.fixture(scope="module")
def run(tiny):
    """The folder of a short pretraining."""
    from densessl.pretrain.engine.train import train

    options = ("BACKBONE.NAME", "resnet18", "SOLVER.MAX_STEPS", 2)
    return train(tiny("moco", None, *options)).parent


@pytest.mark.parametrize(
    ("place", "number"),
    [
        (f"{CONVERT}.conversion:from_file", SIGINT),
        (f"{CONVERT}.conversion:_write", SIGUSR1),
        (f"{CONVERT}.conversion:_prove_file", SIGTERM),
        ("os:replace", SIGHUP),
    ],
)
def test_a_conversion_leaves_all_or_nothing(run, stopped_at, densessl, tmp_path, place, number):
    folder = tmp_path / "weights"
    folder.mkdir()
    words = ("convert", run / "backbone_final.pth", "-o", folder / "weights.pth")
    said = stopped_at(place, number, *words)
    assert "the same command resumes" in said
    assert not list(folder.iterdir())
    densessl(*words)
    densessl("convert", words[1], "-o", tmp_path / "other.pth")
    one, other = (
        torch.load(file, weights_only=True) for file in (words[-1], tmp_path / "other.pth")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("place", "number"),
    [
        (f"{REPORT}.main:find", SIGTERM),
        (f"{REPORT}.main:page", SIGINT),
        (f"{REPORT}.main:write", SIGHUP),
        ("os:replace", SIGUSR2),
    ],
)
def test_the_report_before_stays_until_the_new_one_is_whole(
    run, stopped_at, densessl, tmp_path, place, number
):
    folder = tmp_path / "pages"
    folder.mkdir()
    page = folder / "report.html"
    page.write_text("the one before")
    words = ("report", run, "-o", page)
    said = stopped_at(place, number, *words)
    assert "the same command resumes" in said
    assert page.read_text() == "the one before" and list(folder.iterdir()) == [page]
    densessl(*words)
    assert "Pretraining" in page.read_text()
