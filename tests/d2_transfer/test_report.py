"""The report: what it finds, how it judges, and that a browser shows it."""

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import yaml
from PIL import Image

from densessl.core.errors import InputError
from densessl.d2_transfer import results
from densessl.d2_transfer.report import collect, curves, health, main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LEAST = health.healthy("moco", "stat/feature_std")[0]
NASTY = "<script>alert('1')</script>"


def pretraining(folder, method="moco", finished=True, **columns):
    """A run folder whose lines have the given columns, by step."""
    folder.mkdir(parents=True)
    config = {
        "METHOD": {"NAME": method},
        "MOCO": {"QUEUE": 1023},
        "DINO": {"PROTOTYPES": 64},
        "BACKBONE": {"NAME": "resnet50"},
        "DATA": {"PATH": f"images {NASTY}"},
        "SOLVER": {"BATCH_SIZE": 32},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    count = max(map(len, columns.values()))
    lines = []
    for n in range(count):
        values = {key: column[n] for key, column in columns.items() if n < len(column)}
        lines.append(json.dumps({"iteration": 100 * (n + 1), **values}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    command = f"densessl pretrain --config {method} DATA.PATH 'images {NASTY}'"
    (folder / "log.txt").write_text(f"2026-01-01 10:00:00,000 INFO $ {command}\n")
    if finished:
        (folder / "backbone_final.pth").touch()
    return folder


def record(folder, seed, ap, method="moco", mini=False, **more):
    folder.mkdir(parents=True)
    results.save(
        folder,
        results.Record(
            method=method,
            weights={"path": f"{method}.pkl", "sha256": method.ljust(64, "0")},
            pretrain={"dataset": "imagenet", "epochs": 200},
            protocol="voc_det_c4",
            variant="",
            seed=seed,
            metrics={"bbox/AP": ap, "bbox/AP50": ap + 20, "bbox/AP75": ap + 5} | more,
            config_sha256="0" * 64,
            versions={"torch": "2.11.0", "gpu": NASTY},
            started=results.now(),
            finished=results.now(),
            mini=mini,
        ),
    )


@pytest.fixture
def runs(tmp_path):
    """Two pretrainings, of which one collapsed, four trials, a picture, a graph of jobs."""
    falling = [7.0 - 0.1 * n for n in range(30)]
    well = {"loss": falling, "loss/image": falling, "stat/feature_std": [0.95] * 30}
    pretraining(tmp_path / "pretrain" / "moco", **well, data_wait=[0.01] * 30, skipped=[0] * 30)
    collapsed = {"loss": [-1.0] * 30, "stat/feature_std": [0.9 / (n + 1) for n in range(30)]}
    pretraining(tmp_path / "pretrain" / "simsiam", "simsiam", finished=False, **collapsed)
    for method in ("moco", "random"):
        for seed in (1, 2):
            folder = tmp_path / "transfer" / method / f"trial_{seed}"
            record(folder, seed, 50.0 + seed, method)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 48), "orange").save(tmp_path / "pictures" / "views.png")
    jobs = [{"name": "pretrain-moco", "argv": ["pretrain", "--config", "moco_v2", "A B"]}]
    (tmp_path / "graph.json").write_text(json.dumps({"jobs": jobs, "settings": {}}))
    return tmp_path


@pytest.fixture
def written(runs, tmp_path):
    out = tmp_path / "report.html"
    assert main.main([str(runs), "-o", str(out), "--baseline", "random"]) == 0
    return out


class Page(HTMLParser):
    """The tags that are open, the text by section, and all addresses."""

    VOID = {"meta", "img", "br", "hr", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.addresses, self.tags = [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data


def test_the_page_is_whole_and_needs_nothing_else(written):
    page = Page(written.read_text())
    assert not page.open and "script" not in page.tags
    assert all(each.startswith(("data:", "#")) for each in page.addresses)
    ids = set(re.findall(r'id="(\w+)"', written.read_text()))
    assert {each[1:] for each in page.addresses if each.startswith("#")} == ids
    assert ids == {"summary", "results", "pretraining", "pictures", "environment", "commands"}
    for text in (
        "voc_det_c4: 4 trials of moco, random",
        "51.5",
        "densessl pretrain --config moco_v2",
    ):
        assert text in page.text
    assert NASTY in page.text  # as text, and nowhere as a tag
    assert "simsiam: spread of the embeddings is bad" in page.text


def test_single_classes_and_what_is_undefined_are_on_the_page(tmp_path):
    for method, ap in (("moco", 50.0), ("random", math.nan)):
        record(tmp_path / method / "trial_1", 1, ap, method, **{"bbox/AP-cat": ap})
    assert main.main([str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert not page.open and page.tags.count("details") == 1 and "nan" not in page.text
    rows = [re.sub("<[^>]*>", " ", row).split() for row in re.findall("<tr.*?</tr>", text)]
    assert ["cat", "1", "–", "50.0"] in [row[:1] + row[-3:] for row in rows]
    assert ["random", "–", "–", "–"] in [row[:1] + row[-3:] for row in rows]


def test_a_picture_too_large_is_left_out_and_counted(runs, monkeypatch):
    monkeypatch.setattr(collect, "PICTURE", 10)
    found = collect.find([runs])
    assert not found.pictures and found.left_out == 1


def test_lines_of_a_run_are_read_once_and_damaged_ones_counted(tmp_path):
    folder = pretraining(tmp_path / "run", loss=[3.0, 2.0])
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 200, "loss": 1.5}\n{"iteration": 300, "loss": "x"}\n{"cut')
    (run,) = collect.find([tmp_path, tmp_path]).pretrainings
    assert run.series("loss") == ([100, 200], [3.0, 1.5])
    assert run.unreadable_lines == 1


@pytest.mark.parametrize(
    "key, values, state",
    [
        ("stat/feature_std", [0.01] * 9 + [0.9], health.GOOD),  # the end decides
        ("stat/feature_std", [0.9] * 9 + [0.8 * LEAST], health.LOOK),
        ("stat/feature_std", [0.9] * 9 + [0.09 * LEAST], health.BAD),
        ("stat/uniformity", [-0.1] * 9 + [-3.9], health.GOOD),
        ("stat/uniformity", [-3.9] * 9 + [-0.01], health.LOOK),
        ("stat/teacher_entropy", [0.5 * math.log(64)] * 10, health.GOOD),
        ("stat/teacher_entropy", [0.0] * 10, health.BAD),
        ("stat/teacher_entropy", [math.log(64)] * 10, health.BAD),
        ("data_wait", [0.2] * 10, health.LOOK),
        ("skipped", [0] * 10, health.GOOD),
        ("unreadable", [3] * 10, health.LOOK),
    ],
)
def test_the_end_of_a_run_is_judged_beside_what_is_normal(tmp_path, key, values, state):
    pretraining(tmp_path / "run", **{key: values})
    (run,) = collect.find([tmp_path]).pretrainings
    (verdict,) = health.judge(run)
    assert (verdict.indicator.key, verdict.state) == (key, state)


def test_the_image_loss_is_no_sign_and_few_steps_excuse_nothing(tmp_path):
    """A dead run has a falling loss, too."""
    dead = {"loss/image": [1.0] * 4, "stat/feature_std": [0.01] * 4, "data_wait": [0.9] * 4}
    pretraining(tmp_path / "run", **dead)
    (run,) = collect.find([tmp_path]).pretrainings
    spread, waiting = health.judge(run)
    assert (spread.indicator.key, spread.state) == ("stat/feature_std", health.BAD)
    assert waiting.state == health.LOOK


def test_bands_are_of_healthy_runs_and_have_their_commands():
    for method, found in json.loads(health.BANDS.read_text()).items():
        assert found["command"].startswith("python -m benchmarks.health_bands "), method
        low, high = health.healthy(method, "stat/feature_std")
        assert 0.1 < low <= high < 1.1, method


def test_a_method_of_ones_own_has_the_widest_band():
    methods = json.loads(health.BANDS.read_text())
    lows, highs = zip(*(health.healthy(m, "stat/feature_std") for m in methods), strict=True)
    assert health.healthy("mine.py:Mine", "stat/feature_std") == (min(lows), max(highs))
    assert health.healthy("moco", "no/such") is None


@pytest.mark.parametrize("at_the_end, state", [(0.06, health.BAD), (0.5, health.LOOK)])
def test_what_the_run_warned_of_is_in_words(at_the_end, state, tmp_path):
    accuracy = [0.07] * 6 + [at_the_end] * 4
    noticed = {"collapse/accuracy": [math.nan] * 3 + [400] * 7}
    chance = {"stat/chance": [1 / 16] * 10}
    pretraining(tmp_path / "run", **{"stat/accuracy": accuracy}, **chance, **noticed)
    (run,) = collect.find([tmp_path]).pretrainings
    (verdict,) = health.judge(run)
    assert verdict.state == state and "noticed at step 400" in verdict.noticed
    assert verdict.band == (1.5 / 16, 1.0)
    assert main.main([str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    text = Page((tmp_path / "r.html").read_text()).text
    assert text.count("noticed at step 400") == 2  # the warning, and beside the sign
    assert text.count("as usual again") == (2 if state == health.LOOK else 0)
    assert [title for title, _ in curves.draw(run)] == ["contrast accuracy"]


def test_an_online_measure_is_shown_from_step_0_beside_its_controls(tmp_path):
    folder = pretraining(tmp_path / "run", **{"knn/top1": [30.0, 40.0], "loss": [3.0, 2.0]})
    first = {"iteration": 0, "knn/top1": 12.5, "knn/top1_random": 12.5, "knn/top1_random_bn": 9.5}
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(json.dumps(first) + "\n" + lines)
    (run,) = collect.find([tmp_path]).pretrainings
    assert run.series("knn/top1") == ([0, 100, 200], [12.5, 30.0, 40.0])
    assert run.series("loss") == ([100, 200], [3.0, 2.0])
    assert [value for _, value in curves.controls(run, "knn/top1")] == [12.5, 9.5]
    drawn = dict(curves.draw(run))
    assert drawn.keys() == {"loss (total)", "k-NN (%)"}
    assert main.main([str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    text = Page((tmp_path / "r.html").read_text()).text
    assert "k-NN 40.0 % at step 200 (random start 12.5 %" in text


def test_a_damaged_record_is_named_and_left_out(runs, tmp_path, capsys):
    broken = runs / "transfer" / "moco" / "trial_3"
    broken.mkdir()
    (broken / "result.json").write_text("{")
    assert main.main([str(runs), "-o", str(tmp_path / "r.html")]) == 0
    assert "left out" in capsys.readouterr().err
    assert "voc_det_c4: 4 trials" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    "methods, warned", [(["moco"] * 3, "alone"), (["moco", "random"], "one trial"), ("abab", "")]
)
def test_numbers_without_a_control_or_a_spread_are_said_to_tell_nothing(tmp_path, methods, warned):
    for seed, method in enumerate(methods):
        record(tmp_path / "run" / method / f"trial_{seed}", seed, 50.0 + seed, method)
    assert main.main([str(tmp_path / "run"), "-o", str(tmp_path / "page.html")]) == 0
    found = re.findall(r'class="warning look">(.*?)</p>', (tmp_path / "page.html").read_text())
    assert [warned in line for line in found] == ([True] if warned else [])


def test_links_that_lead_back_and_data_sets_are_passed_over(tmp_path):
    for name in ("run/b.txt", "run/a/c.txt", "run/scenes/densessl_scenes.json", "run/scenes/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "run" / "a" / "again").symlink_to(tmp_path / "run")
    found = collect.files_below(tmp_path / "run")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["run/a/c.txt", "run/b.txt"]


def test_nothing_to_report_is_one_message(tmp_path):
    with pytest.raises(InputError, match="nothing to report"):
        main.main([str(tmp_path), "-o", str(tmp_path / "r.html")])
    with pytest.raises(InputError, match="is not a folder"):
        main.main([str(tmp_path / "no"), "-o", str(tmp_path / "r.html")])
    assert not (tmp_path / "r.html").exists()


def test_a_page_for_a_narrow_screen_repeats_the_facts_below_the_label(tmp_path):
    """Not in the text of a wide one: what is hidden there is in the very cell of the label."""
    for seed in (1, 2):
        record(tmp_path / f"trial_{seed}", seed, 50.0 + seed)
    assert main.main([str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    text = (tmp_path / "r.html").read_text()
    assert 'moco<div class="folded">imagenet · epochs\u00a0200 · n\u00a02</div></th>' in text
    assert '<td class="fact">imagenet</td>' in text
    assert 'class="scroll" role="region" aria-label="voc_det_c4" tabindex="0"' in text


# Again and again: a busy machine may draw the first frame late, and the last title counts.
MEASURE = """<script>addEventListener("load", () => setInterval(() => {
  document.title = JSON.stringify([...document.querySelectorAll(".densessl")].map(table => {
    const scroll = table.querySelector(".scroll");
    const heads = [...table.querySelectorAll("thead tr:last-child th")];
    const ap = heads.find(head => head.textContent == "AP").cellIndex;
    const cells = [...table.querySelectorAll("tbody tr")].map(row => row.cells[ap]);
    return {
      scrolls: scroll.scrollWidth > scroll.clientWidth,
      said: table.querySelector(".sideways").getBoundingClientRect().height > 5,
      ap: Math.max(...cells.map(cell => cell.getBoundingClientRect().right)),
    };
  }));
}, 100));</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_on_a_phone_ap_is_in_sight_and_a_table_says_that_it_scrolls(tmp_path):
    for method in ("moco", "random"):
        for seed in (1, 2):
            folder = tmp_path / method / f"trial_{seed}"
            record(folder / "narrow", seed, 50.0 + seed, method)
            masks = {f"segm/AP{more}": 40.0 for more in ("", "50", "75")}
            record(folder / "wide", seed, 50.0 + seed, method, mini=True, **masks)
    out = tmp_path / "r.html"
    assert main.main([str(tmp_path), "-o", str(out), "--baseline", "random"]) == 0
    out.write_text(out.read_text().replace("</body>", MEASURE))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,900"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    command = [CHROMIUM, *options, "--dump-dom", out.as_uri()]
    for _ in range(5):  # where the machine is busy, a browser may leave before the page is drawn
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        title = html.unescape(re.search("<title>(.*)</title>", shown)[1])
        if title.startswith("[") and json.loads(title)[1]["said"]:
            break
    narrow, wide = json.loads(title)
    assert narrow["ap"] < 390 and wide["ap"] < 390  # all of AP, also with its difference
    assert (narrow["scrolls"], narrow["said"]) == (False, False)
    assert (wide["scrolls"], wide["said"]) == (True, True)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_every_image_and_has_no_complaint(written, tmp_path, width):
    counting = """<script>addEventListener("load", () => {
      const images = [...document.images];
      const wide = document.documentElement.scrollWidth > innerWidth;
      document.title = images.filter(image => image.naturalWidth).length + " of " + images.length
        + (wide ? ", too wide" : "");
    });</script></body>"""
    page = tmp_path / "counting.html"
    page.write_text(written.read_text().replace("</body>", counting))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    shot = tmp_path / "shot.png"
    command = [CHROMIUM, *options, "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True
    )
    assert re.search("<title>(.*)</title>", done.stdout)[1] == "7 of 7"
    assert "CONSOLE" not in done.stderr
    subprocess.run(
        [*command, f"--screenshot={shot}", page.as_uri()], capture_output=True, check=True
    )
    with Image.open(shot) as image:
        assert image.size == (width, 900)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 20  # something is drawn
