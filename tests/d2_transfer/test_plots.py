"""Training curves: what a run wrote, and the lines that are drawn of it."""

import json
import math

import pytest

from densessl.core.errors import InputError
from densessl.d2_transfer.plots import curves, main, runs
from densessl.d2_transfer.plots.model import breaks, in_legend, running_mean, spread_of

NAN = math.nan


def same(found, expected):
    """Equal floats, NaN beside NaN."""
    return found == pytest.approx(expected, nan_ok=True)


@pytest.fixture
def log(tmp_path):
    """A function that writes lines (dicts, or text as it is) into a folder's metrics.jsonl."""

    def write(folder, lines):
        file = tmp_path / folder / "metrics.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        file.write_text("".join(f"{text}\n" for text in texts))
        return tmp_path / folder

    return write


def trial(number, values, start=1, metric="total_loss"):
    return [{"trial": number, "iteration": start + n, metric: v} for n, v in enumerate(values)]


def line(run, metric="total_loss", **options):
    return curves.build([("run", run)], [metric], **options).panels[0].lines[0]


def test_a_pretraining_is_one_line(log):
    lines = [{"iteration": n, "epoch": n / 4, "loss": 9.0 - n, "lr": 0.1} for n in (2, 4, 6)]
    plot = curves.build([("moco", runs.read(log("moco", lines)))])
    (panel,) = plot.panels
    (drawn,) = panel.lines
    assert (panel.x_label, panel.y_label, plot.notes) == ("step", "loss", [])
    assert (drawn.label, drawn.x, drawn.y) == ("moco", [2, 4, 6], [7.0, 5.0, 3.0])
    assert (drawn.low, drawn.high) == ([], [])


def test_epochs_are_the_lines_own(log):
    lines = [{"iteration": n, "epoch": n / 4, "loss": 1.0} for n in (2, 4)]
    run = runs.read(log("moco", lines))
    assert line(run, "loss", x="epoch").x == [0.5, 1.0]
    other = runs.read(log("voc", trial(1, [1.0, 2.0])))
    with pytest.raises(InputError, match="--x is 'epoch', but run has lines without one"):
        line(other, x="epoch")


def test_trials_are_a_mean_with_the_spread_that_is_said(log):
    lines = trial(1, [1.0, 3.0]) + trial(2, [2.0, 3.0]) + trial(3, [6.0, 3.0])
    run = runs.read(log("voc", lines))
    drawn = line(run)
    deviation = math.sqrt((4 + 1 + 9) / 2)  # of 1, 2, 6 around 3, ddof 1
    assert drawn.y == [3.0, 3.0] and drawn.counts == [3, 3]
    assert drawn.low == pytest.approx([3 - deviation, 3.0])
    assert drawn.high == pytest.approx([3 + deviation, 3.0])
    drawn = line(run, spread="range")
    assert (drawn.low, drawn.high) == ([1.0, 3.0], [6.0, 3.0])
    for spread, name in (("std", "± standard deviation"), ("range", "minimum to maximum")):
        assert name in curves.build([("voc", run)], spread=spread).notes[0]


def test_a_trial_that_is_behind_counts_where_it_was(log):
    drawn = line(runs.read(log("voc", trial(1, [1.0, 2.0, 3.0]) + trial(2, [3.0]))))
    assert drawn.y == [2.0, 2.0, 3.0] and drawn.counts == [2, 1, 1]
    assert same(drawn.low, [2 - math.sqrt(2), NAN, NAN])
    assert in_legend([drawn]) == {"run": "run (n = 1–2)"}


def test_trials_of_processes_of_their_own_are_one_run(log, tmp_path):
    log("voc/trial_2", trial(2, [4.0]))
    log("voc/trial_10", trial(10, [6.0]))
    log("voc", trial(1, [2.0]))
    log("voc/trial_old", trial(3, [100.0]))  # no trial's folder
    run = runs.read(tmp_path / "voc")
    assert list(run.trials) == [1, 2, 10] and line(run).y == [4.0]


def test_a_run_that_went_back_counts_once(log):
    lines = trial(1, [1.0, 2.0, 3.0, 4.0]) + trial(1, [20.0, 30.0], start=2)
    drawn = line(runs.read(log("voc", lines)))
    assert (drawn.x, drawn.y) == ([1, 2, 3], [1.0, 20.0, 30.0])  # what came after is of before


def test_a_line_twice_counts_once_and_the_last_one(log):
    lines = [
        {"trial": 1, "iteration": 5, "total_loss": 1.0, "lr": 0.1},
        {"trial": 1, "iteration": 5, "total_loss": 2.0},
        {"trial": 1, "iteration": 5, "bbox/AP": 50.0},
    ]
    run = runs.read(log("voc", lines))
    assert line(run).y == [2.0] and line(run).counts == [1]
    assert line(run, "bbox/AP").y == [50.0] and line(run, "lr").y == [0.1]


@pytest.mark.parametrize("first", ["voc", "voc/trial_1"])
def test_a_trial_in_two_files_goes_on_in_the_later_steps(log, tmp_path, first):
    other = {"voc": "voc/trial_1", "voc/trial_1": "voc"}[first]
    log(first, trial(1, [1.0, 2.0, 3.0]))
    log(other, trial(1, [20.0, 30.0, 40.0], start=2))
    drawn = line(runs.read(tmp_path / "voc"))
    assert (drawn.x, drawn.y) == ([1, 2, 3, 4], [1.0, 20.0, 30.0, 40.0])


def test_what_is_not_a_number_is_a_gap(log):
    texts = [
        '{"trial": 1, "iteration": 1, "total_loss": 1.0}',
        '{"trial": 1, "iteration": 2, "total_loss": null}',
        '{"trial": 1, "iteration": 3, "total_loss": NaN}',
        '{"trial": 1, "iteration": 4, "total_loss": Infinity}',
        '{"trial": 1, "iteration": 5, "total_loss": 1%s}' % ("0" * 400),
        '{"trial": 1, "iteration": 6, "total_loss": 3.0}',
    ]
    run = runs.read(log("voc", texts))
    drawn = line(run)
    assert same(drawn.y, [1.0, NAN, NAN, NAN, NAN, 3.0])
    assert breaks(drawn) == [0]
    assert "not a number" in curves.build([("voc", run)]).notes[0]


def test_a_metric_that_is_nowhere_a_number_is_said(log, caplog):
    run = runs.read(log("voc", trial(1, [None, None], metric="bbox/AP-cat")))
    with caplog.at_level("WARNING", "densessl"):
        curves.build([("voc", run)], ["bbox/AP-cat"])
    assert "voc: bbox/AP-cat is nowhere a number" in caplog.text


def test_one_diverged_trial_leaves_no_mean(log):
    lines = trial(1, [1.0, None, 2.0]) + trial(2, [3.0, 4.0, 4.0])
    drawn = line(runs.read(log("voc", lines)))
    assert same(drawn.y, [2.0, NAN, 3.0]) and same(drawn.low[1:2], [NAN])


def test_a_line_of_skipped_steps_is_a_gap_of_what_all_others_have(log):
    lines = [
        {"iteration": 1, "epoch": 0.1, "loss": 5.0, "dense": 2.0},
        {"iteration": 2, "epoch": 0.2},
        {"iteration": 3, "epoch": 0.3, "loss": 4.0, "dense": 1.0, "knn/top1": 30.0},
        {"iteration": 4, "epoch": 0.4, "loss": 3.0, "dense": 1.0, "knn/top1": 31.0},
    ]
    run = runs.read(log("moco", lines))
    assert same(line(run, "loss").y, [5.0, NAN, 4.0, 3.0])
    assert same(line(run, "dense").y, [2.0, NAN, 1.0, 1.0])
    assert line(run, "knn/top1").y == [30.0, 31.0]  # measured now and then
    assert line(run, "epoch").y == [0.1, 0.2, 0.3, 0.4]


def test_an_evaluation_is_no_gap_of_the_loss(log):
    lines = [*trial(1, [1.0]), {"trial": 1, "iteration": 2, "bbox/AP": 40.0}, *trial(1, [2.0], 3)]
    assert line(runs.read(log("voc", lines))).y == [1.0, 2.0]


def test_unreadable_lines_are_counted_and_left_out(log, capsys, tmp_path):
    bad = [
        "{",
        "[1]",
        '{"iteration": "5"}',
        '{"iteration": true}',
        '{"total_loss": 1.0}',
        "[" * 9999,
    ]
    folder = log("voc", [*trial(1, [1.0]), *bad, "", *trial(1, [2.0], 2)])
    run = runs.read(folder)
    assert line(run).y == [1.0, 2.0]
    assert run.unreadable == {folder / "metrics.jsonl": [2, 3, 4, 5, 6, 7]}
    assert main.main(["curves", str(folder), "-o", str(tmp_path / "c.svg")]) == 0
    said = capsys.readouterr().err
    assert "6 unreadable lines are left out: 2, 3, 4, 5, 6, …" in said and "metrics.jsonl" in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [([], "it is empty"), (["", " "], "it is empty"), (["x", "{}"], "no line of it can be read")],
)
def test_a_file_without_a_line_is_refused(log, lines, said):
    with pytest.raises(InputError, match=said):
        runs.read(log("voc", lines))


def test_what_is_no_run_is_refused(log, tmp_path):
    log("out/a", trial(1, [1.0]))
    log("out/b/trial_1", trial(1, [1.0]))
    with pytest.raises(InputError, match="is no run, but holds some; name them: .*out/a, .*out/b$"):
        runs.read(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no metrics.jsonl"):
        runs.read(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        runs.read(tmp_path / "nowhere")


def test_a_file_is_a_run_too(log):
    folder = log("voc", trial(1, [1.0]))
    run = runs.read(folder / "metrics.jsonl")
    assert run.trials == {1: {1: {"total_loss": 1.0}}} and run.path == folder
    (folder / "metrics.jsonl").rename(folder / "old.jsonl")
    assert runs.read(folder / "old.jsonl").path == folder / "old.jsonl"


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    places = [tmp_path / "moco" / "voc", tmp_path / "setsim" / "voc"]
    assert runs.names(places) == ["moco/voc", "setsim/voc"]
    assert runs.names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    with pytest.raises(InputError, match="named twice"):
        runs.names([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_a_panel_for_each_metric_and_the_losses_unless_named(log):
    pretraining = runs.read(log("moco", [{"iteration": 1, "epoch": 1.0, "loss": 5.0, "lr": 0.1}]))
    tuning = runs.read(log("voc", trial(1, [1.0])))
    both = [("moco", pretraining), ("voc", tuning)]
    panels = curves.build(both).panels
    assert [panel.y_label for panel in panels] == ["loss", "total_loss"]
    assert [[each.label for each in panel.lines] for panel in panels] == [["moco"], ["voc"]]
    panels = curves.build(both, ["lr", "total_loss"]).panels
    assert [panel.y_label for panel in panels] == ["lr", "total_loss"]
    with pytest.raises(InputError, match="unknown metric 'totl_loss'.*Did you mean 'total_loss'"):
        curves.build(both, ["totl_loss"])
    evaluated = runs.read(log("knn", trial(1, [1.0], metric="knn/top1")))
    with pytest.raises(InputError, match="knn has neither of loss, total_loss.*knn/top1"):
        curves.build([("knn", evaluated)])


def test_running_mean_by_hand():
    assert same(running_mean([1.0, 2.0, 6.0, 4.0], 2), [1.0, 1.5, 4.0, 5.0])
    assert same(running_mean([1.0, NAN, 3.0, 5.0], 2), [1.0, NAN, 3.0, 4.0])
    assert running_mean([1.0, 5.0], 1) == [1.0, 5.0]


def test_smoothing_is_of_each_trial_and_named_on_the_axis(log):
    run = runs.read(log("voc", trial(1, [0.0, 4.0]) + trial(2, [2.0, 2.0])))
    plot = curves.build([("voc", run)], smooth=2, spread="range")
    (drawn,) = plot.panels[0].lines
    assert plot.panels[0].y_label == "total_loss (mean of 2 points)"
    assert (drawn.y, drawn.low, drawn.high) == ([1.0, 2.0], [0.0, 2.0], [2.0, 2.0])


def test_the_spread_of_one_trial_and_of_an_undefined_one():
    assert same(spread_of([3.0], "std"), (3.0, NAN, NAN))
    assert same(spread_of([3.0, NAN], "range"), (NAN, NAN, NAN))


@pytest.mark.parametrize("spread", ["std", "range"])
def test_the_mean_is_within_the_spread_of_equal_values(spread):
    for value in (0.1, 0.7, 82.3):  # the mean of three is rounded up or down
        mean, low, high = spread_of([value] * 3, spread)
        assert low <= mean <= high


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--smooth", "0"], "--smooth: .* is 0; .*at least 1"),
        (["--label", "one", "--label", "two"], "--label is given 2 times, for 1 RUN"),
        (["--metric", "totl_loss"], "Did you mean 'total_loss'"),
        (["-o", "c.jpg"], "'.jpg' is no format of a plot.*Allowed: .png, .svg, .pdf"),
        (["-o", "."], "is no format of a plot"),
        (["--smoth", "2"], "Did you mean '--smooth'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(log, tmp_path, options, said):
    folder = log("voc", trial(1, [1.0]))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=said):
        main.main(["curves", str(folder), *options])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_plot_names_the_nearest(capsys):
    with pytest.raises(InputError, match="unknown plot 'curve'. Did you mean 'curves'"):
        main.main(["curve"])
    assert main.main([]) == 2 and main.main(["--help"]) == 0
    assert "threshold" in capsys.readouterr().out


def test_labels_are_the_legends(log, tmp_path):
    places = [str(log(name, trial(1, [1.0, 2.0]))) for name in ("a", "b")]
    out = tmp_path / "c.svg"
    labels = ["--label", "MoCo-v2", "--label", "SetSim"]
    assert main.main(["curves", *places, *labels, "-o", str(out)]) == 0
    assert ">MoCo-v2<" in out.read_text() and ">SetSim<" in out.read_text()
    with pytest.raises(InputError, match="names two runs alike"):
        main.main(["curves", *places, "--label", "x", "--label", "x"])
