"""A user's LazyConfig, with data sets that it registers, as a protocol: ``--protocol mine.py``."""

import re
from pathlib import Path

import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import compat, lazy_config, protocols, results
from densessl.d2_transfer.resolve import check_words, resolve

compat.setup()  # before any test imports Detectron2

HERE = Path(__file__).parent / "lazy_project.py"
SMALL = ["train.max_iter", "3", "dataloader.train.total_batch_size", "2"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, scenes):
    """A folder with the LazyConfig, on a few of the scenes, which it registers itself."""
    folder = tmp_path_factory.mktemp("lazy")
    (folder / "mine.py").write_text(
        HERE.read_text().replace("ROOT = None", f"ROOT = {str(scenes)!r}")
    )
    return folder


@pytest.fixture(autouse=True)
def here(project, monkeypatch):
    monkeypatch.chdir(project)


def test_what_stands_for_it_is_what_it_says():
    found, variant = protocols.find("mine.py")
    assert (found.name, variant, found.metrics) == ("mine", "", protocols.BOX)
    assert found.datasets == ("lazy_train", "lazy_val")
    cfg = resolve("mine.py", gpus=1, cuda=False, overrides=["train.max_iter", "7"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH) == (7, 0.01, 4)
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS) == (18, 64)
    assert (cfg.MODEL.BACKBONE.FREEZE_AT, cfg.INPUT.FORMAT) == (1, "RGB")
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]


def test_an_evaluator_of_ones_own_takes_the_place_of_ours(project):
    from densessl.d2_transfer.evaluation import build_evaluator

    Path("counting.py").write_text(
        "from detectron2.evaluation import DatasetEvaluator\n"
        "class Counting(DatasetEvaluator):\n"
        "    def __init__(self, dataset_name, most):\n"
        "        self.made = dataset_name, most\n"
        "    def evaluate(self):\n"
        "        return {'boxes': 7}\n"
    )
    text = Path("mine.py").read_text().replace("L(COCOEvaluator)(", "L(Counting)(most=3, ")
    Path("counted.py").write_text(
        "from counting import Counting\n" + re.sub(r"lazy_(train|val)", r"counted_\1", text)
    )
    cfg = resolve("counted.py", cuda=False)
    assert lazy_config.evaluator(resolve("mine.py", cuda=False)) is None
    made = build_evaluator("counted_val", "", 0, maker=lazy_config.evaluator(cfg))
    assert made._evaluators[1].made == ("counted_val", 3)
    assert made.evaluate() == {"boxes": 7}


def test_it_trains_resumes_is_recorded_and_evaluated_again(our_checkpoint, stops_at, capsys):
    weights = str(our_checkpoint(Path("backbone.pth"), depth=18))
    words = ["transfer", weights, "--protocol", "mine.py", "--trials", "1", *SMALL]
    assert densessl.main([*words, "-o", "whole"]) == 0
    with stops_at(1):
        assert densessl.main([*words, "-o", "parts"]) == 75
    assert densessl.main([*words, "-o", "parts"]) == 0
    one, two = (
        torch.load(f"{out}/trial_1/model_final.pth", weights_only=True)["model"]
        for out in ("whole", "parts")
    )
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    record = results.load("whole/trial_1")
    assert record.config_sha256 == results.load("parts/trial_1").config_sha256
    again = ["transfer", "whole/trial_1", *words[2:], "--eval-only", "-o", "again"]
    assert densessl.main(again) == 0
    assert results.load("again").metrics == pytest.approx(record.metrics, nan_ok=True)
    assert densessl.main(["table", "whole"]) == 0


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('image_format="RGB"', 'image_format="BGR"', "INPUT.FORMAT is BGR, the weights need RGB"),
        ("pixel_std=[58.395, 57.120, 57.375]", "pixel_std=[1.0, 1.0, 1.0]", "MODEL.PIXEL_STD is"),
        ("depth=18", "depth=34", "MODEL.RESNETS.DEPTH is 34, the weights need 18"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(old, new, says, our_checkpoint, capsys):
    weights = str(our_checkpoint(Path("backbone.pth"), depth=18))
    text = Path("mine.py").read_text().replace(old, new)
    name = f"other{len(old)}"  # a data set can be registered once a process
    Path("other.py").write_text(re.sub(r"lazy_(train|val)", rf"{name}_\1", text))
    assert densessl.main(["transfer", weights, "--protocol", "other.py", "-o", "no", *SMALL]) == 2
    assert says in capsys.readouterr().err
    assert not Path("no").exists()


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "cannot be read: No such file"),
        ("x = 1\n1 / 0\n", "wrong.py, line 2: ZeroDivisionError"),
        ("def f(:\n", "wrong.py.*SyntaxError"),
        ("train = {'max_iter': 3}\n", "wrong.py has no model; a LazyConfig that trains has one"),
        ("model = {'f': lambda: 3}\n", "wrong.py: model: f is .*no other process could import"),
    ],
)
def test_what_is_no_lazy_config_is_named(text, says, tmp_path):
    if text is not None:
        (tmp_path / "wrong.py").write_text(text)
    with pytest.raises(InputError, match=says):
        protocols.find(str(tmp_path / "wrong.py"))


@pytest.mark.parametrize(
    "words, says",
    [
        (["train.max_iters", "3"], "unknown key 'train.max_iters' in mine.py.*'train.max_iter'"),
        (["train.max_iter", "many"], "train.max_iter"),
        (["SOLVER.MAX_ITER", "3"], "unknown key 'SOLVER.MAX_ITER' in mine.py"),
    ],
)
def test_a_key_that_it_lacks_is_named(words, says):
    with pytest.raises(InputError, match=says):
        check_words("mine.py", words)


def test_it_has_no_miniature():
    with pytest.raises(InputError, match="--mini has no miniature of mine.py.*train.max_iter 50"):
        resolve("mine.py", mini=True)
