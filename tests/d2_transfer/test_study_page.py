"""The page of a study: whole, partial, with pictures, and in a browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer.dense_probes import predictions
from densessl.d2_transfer.report.study_page import write_study_page
from tests.d2_transfer.study_folders import ARMS, study
from tests.d2_transfer.test_report import CHROMIUM, NASTY, Page

SPREAD = (0.0, 0.3, -0.2)
GIVEN = {"name": "imagenet", "kind": "given", "weights": NASTY}
LEVELS = {"random": (12, 20, 25), "random_bn": (10, 17, 21), "simclr": (15, 24, 31)}


def values(levels=LEVELS, classes=True):
    """Metrics by arm and percent; simclr's are of three pretrainings."""
    found = {}
    for arm, means in levels.items():
        found[arm] = {}
        for percent, mean in zip((1, 10, 100), means, strict=True):
            units = [metrics(mean + each, classes) for each in SPREAD]
            pretrained = arm not in ("random", "random_bn")
            found[arm][percent] = [[each] for each in units] if pretrained else units
    return found


def metrics(mean, classes):
    more = {"sem_seg/IoU-sky": mean + 2, "sem_seg/IoU-road": mean - 2} if classes else {}
    return {"sem_seg/mIoU": mean, "sem_seg/pACC": 70.0} | more


def written(folder):
    write_study_page(folder, folder / "report.html")
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and "script" not in page.tags and "nan" not in page.text
    assert all(each.startswith(("data:", "#")) for each in page.addresses)
    ids = set(re.findall(r'id="(\w+)"', text))
    assert {each[1:] for each in page.addresses if each.startswith("#")} == ids
    return " ".join(page.text.replace("\u00a0", " ").split()), ids


def test_a_whole_study_is_an_answer_with_its_numbers(tmp_path):
    folder = study(tmp_path / "study", values(), left_out=["pixpro: it does not fit"])
    text, ids = written(folder)
    expected = {"answer", "compared", "classes", "tables", "left_out", "settings", "commands"}
    assert ids == expected
    assert "Is pretraining on these 1,000 images worth it?" in text
    assert "simclr beats starting at random with 1 %, 10 % and 100 % of the labels." in text
    assert "Yes" in text and "That may be chance" not in text
    assert "+6.00 mIoU with 100 % of the labels (400 images): simclr 31.03, random 25.03." in text
    assert "3 pretrainings against 3 random networks" in text
    assert "pixpro: it does not fit" in text and "not complete" not in text
    assert "densessl study --images photographs -o study" in text
    assert "densessl convert pretrain/simclr/1.pth" in text  # the best of the three


def test_names_are_text_and_nothing_else(tmp_path):
    given = {percent: [[metrics(8.0, True)]] for percent in (1, 10, 100)}
    folder = study(tmp_path / "study", values() | {"imagenet": given}, arms=(*ARMS, GIVEN))
    text, _ = written(folder)
    assert NASTY in text
    assert "1 given network" in text


def test_the_metric_of_the_study_is_in_the_table_whatever_papers_print(tmp_path):
    metric = "linear/top1_best_lr"
    ours = {metric: 47.25, "linear/best_lr": 0.1}
    found = {"random": {100: [{metric: 41.5}] * 2}, "simclr": {100: [[ours]]}}
    protocols = [{"name": "linear_semseg", "variant": "camvid", "metric": metric}]
    text, _ = written(study(tmp_path / "study", found, protocols=protocols, task="cls"))
    assert "+5.75 top1 with 100 %" in text
    table = text.partition("whether a difference may be chance stands above.")[2]
    table = table.partition("Settings")[0]
    assert "top1_best_lr" in table and "47.2" in table


@pytest.mark.parametrize("absent", ["random", "random_bn", "simclr"])
def test_a_study_without_an_arm_says_so_and_claims_no_more(tmp_path, absent):
    found = values()
    del found[absent]
    text, _ = written(study(tmp_path / "study", found))
    assert f"{absent} is not measured with 1 %, 10 % and 100 % of the labels" in text
    assert ("Cannot be said yet" in text) == (absent == "simclr")
    assert ("beats" in text) == (absent != "simclr")


def test_a_share_that_is_not_there_yet_is_not_spoken_of(tmp_path):
    found = values()
    del found["simclr"][100]
    text, _ = written(study(tmp_path / "study", found))
    assert "simclr is not measured with 100 % of the labels" in text
    assert "simclr beats starting at random with 1 % and 10 % of the labels." in text
    assert "Not within what was measured" in text


def test_pretrainings_that_are_missing_are_counted(tmp_path):
    found = values()
    found["simclr"][100] = found["simclr"][100][:2]
    text, _ = written(study(tmp_path / "study", found))
    assert "simclr with 100 % of the labels: 2 of 3 pretrainings" in text
    assert "simclr with 10 %" not in text


def test_single_runs_and_no_runs_answer_nothing(tmp_path):
    single = {arm: {100: own[100][:1]} for arm, own in values().items()}
    text, _ = written(study(tmp_path / "single", single))
    assert "Cannot be said with this many runs" in text and "beats" not in text
    assert "One run has no spread" in text
    text, ids = written(study(tmp_path / "nothing", {}))
    assert "Cannot be said yet" in text and ids == {"answer", "settings", "commands"}
    only = ({"name": "simclr", "kind": "pretrained"},)
    text, _ = written(study(tmp_path / "only", {"simclr": values()["simclr"]}, arms=only))
    assert "No random start is part of this study" in text and "beats" not in text


def test_what_is_no_record_of_the_study_is_named(tmp_path):
    folder = study(tmp_path / "study", values())
    broken = folder / "results" / "linear_semseg" / "1" / "random" / "trial_1" / "result.json"
    broken.write_text("{")
    elsewhere = folder / "results" / "linear_semseg" / "5" / "random" / "trial_1"
    shutil.copytree(folder / "results" / "linear_semseg" / "10" / "random" / "trial_1", elsewhere)
    text, _ = written(folder)
    assert f"{broken} is not a trial record" in text and f"{elsewhere}: a record of" in text


def test_another_draw_of_labels_is_another_config_and_compares(tmp_path):
    one = {arm: {1: own[1][:1]} for arm, own in values().items()}
    for draw in (1, 2):
        config = {"DATASETS": {"CUSTOM": f"draw {draw}"}}
        folder = study(tmp_path / "a", one, config=config, first=draw, label_draw="by_trial")
    text, _ = written(folder)
    assert "not all was measured under one config" not in text
    for arm, size in (("random", 96), ("simclr", 64)):
        config = {"INPUT": {"SIZE": size}}
        study(tmp_path / "b", {arm: one[arm]}, config=config, label_draw="by_trial")
    text, _ = written(tmp_path / "b")
    assert "With 1 % of the labels not all was measured under one config" in text
    assert "INPUT.SIZE is 96 and 64" in text


def test_predictions_stand_beside_the_truth(tmp_path):
    folder = study(tmp_path / "study", values())
    truth = np.zeros((8, 10), np.uint8)
    truth[4:], truth[0] = 1, 255
    for arm, wrong in (("random", 35), ("simclr", 7)):
        predicted = np.where(truth == 255, 2, truth)
        predicted.flat[10 : 10 + wrong] = 2
        for place in (folder / "results" / "linear_semseg" / "100" / arm).rglob("trial_1"):
            (place / "predictions").mkdir()
            told = {"classes": ["sky", "road", "car", "tree"], "images": [3]}
            (place / "predictions" / "predictions.json").write_text(json.dumps(told))
            Image.new("RGB", (10, 8), "orange").save(place / "predictions" / "3_image.jpg")
            for part, labels in (("truth", truth), ("predicted", predicted)):
                picture = Image.fromarray(labels, mode="P")
                picture.putpalette([c for n in range(256) for c in predictions.colour(n)])
                picture.save(place / "predictions" / f"3_{part}.png")
    text, ids = written(folder)
    assert "pictures" in ids
    assert "random: 50 % right" in text and "simclr: 90 % right" in text  # of 70 pixels
    assert "sky road car" in text and "tree" not in text
    page = (folder / "report.html").read_text()
    assert "background: #{:02x}{:02x}{:02x}".format(*predictions.colour(2)) in page
    for broken in folder.rglob("3_truth.png"):
        broken.write_bytes(b"\x89PNG")
    assert "pictures" not in written(folder)[1]


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no study"):
        write_study_page(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(tmp_path, width):
    given = {percent: [[metrics(8.0, True)]] for percent in (1, 10, 100)}
    arms = (*ARMS, {**GIVEN, "weights": "resnet18.pth"})
    folder = study(tmp_path / "study", values() | {"imagenet": given}, arms=arms)
    written(folder)
    measuring = """<script>addEventListener("load", () => {
      const wide = [...document.querySelectorAll(".versus, .classes, .plot")].filter(each =>
        each.getBoundingClientRect().right > innerWidth);
      const drawn = [...document.images].every(image => image.naturalWidth);
      document.title = [document.documentElement.scrollWidth <= innerWidth, wide.length, drawn];
    });</script></body>"""
    page = folder / "measuring.html"
    page.write_text((folder / "report.html").read_text().replace("</body>", measuring))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search("<title>(.*)</title>", done.stdout)[1] == "true,0,true"
