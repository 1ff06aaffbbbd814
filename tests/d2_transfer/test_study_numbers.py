"""A study's numbers, each against a plain computation of its own, and what is concluded."""

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats

from densessl.core.errors import InputError
from densessl.d2_transfer.report import (
    collect,
    study_data,
    study_labels,
    study_numbers,
    study_steps,
)
from densessl.d2_transfer.report import study_words as words
from densessl.d2_transfer.report.study_numbers import BETTER, UNSEEN, UNTESTED, WORSE
from densessl.d2_transfer.tables import power
from tests.d2_transfer.study_folders import ARMS, SHARES, study

R1, R10, R100 = [10.0, 11.1, 9.2], [20.1, 20.9, 20.2], [30.3, 30.0, 30.9]
BN = [8.0, 8.4, 7.9]
S1, S10, S100 = [14.2, 15.9, 13.1], [27.0, 27.9, 26.2], [33.0, 33.3, 32.1]
VALUES = {
    "random": {1: R1, 10: R10, 100: R100},
    "random_bn": {1: BN, 10: [v + 8 for v in BN], 100: [v + 15 for v in BN]},
    "simclr": {1: [[v] for v in S1], 10: [[v] for v in S10], 100: [[v] for v in S100]},
}
GIVEN = {"name": "imagenet", "kind": "given", "weights": "resnet18.pth"}


def read(tmp_path, values=VALUES, **facts):
    return study_data.read(study(tmp_path / "study", values, **facts))


def by_holm(values):
    """Holm's procedure as in his paper: the smallest m times itself, the next m − 1 times, …"""
    order, after, highest = np.argsort(values), np.empty(len(values)), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        after[place] = highest
    return after


@pytest.mark.parametrize("draw", ["same", "by_trial"])
def test_starts_are_compared_by_pretrainings_and_corrected_for_their_number(tmp_path, draw):
    found = study_numbers.against(read(tmp_path, label_draw=draw), study_data.RANDOM)
    assert [(each.other, each.share.percent) for each in found] == [
        (other, percent) for other in ("random", "random_bn") for percent, _ in SHARES
    ]
    plain = []
    for ours, theirs, percent in zip((S1, S10, S100), (R1, R10, R100), (1, 10, 100), strict=True):
        if draw == "by_trial" and percent < 100:  # a draw's trials are a pair
            plain.append(stats.ttest_rel(ours, theirs).pvalue)
        else:
            plain.append(stats.ttest_ind(ours, theirs, equal_var=False).pvalue)
    of_random = found[:3]
    assert [each.p for each in of_random] == pytest.approx(by_holm(plain), rel=1e-9)
    assert [each.found.mean for each in of_random] == pytest.approx(
        [np.mean(S1) - np.mean(R1), np.mean(S10) - np.mean(R10), np.mean(S100) - np.mean(R100)]
    )
    for each, p in zip(of_random, plain, strict=True):
        assert each.state == (BETTER if each.p <= 0.05 else UNSEEN)
        assert (p <= each.level * (1 + 1e-9)) == (each.p <= 0.05)


def test_trials_of_a_pretraining_count_once(tmp_path):
    trials = [[v - 1, v + 1] for v in S100]
    values = {**VALUES, "simclr": {100: trials}}
    found = study_numbers.against(read(tmp_path, values, label_draw="same"), study_data.RANDOM)[0]
    assert found.p == pytest.approx(stats.ttest_ind(S100, R100, equal_var=False).pvalue, rel=1e-9)
    assert found.found.fine_tunings == ((1, 1, 1), (2, 2, 2))
    assert "3 pretrainings of 2 trials each against 3 random networks" in words.runs(found)


def test_pairs_are_of_one_draw_and_the_others_do_not_count(tmp_path):
    """A pretraining is missing: what the random start has of its draw has no partner."""
    values = {**VALUES, "simclr": {1: [[S1[0]], [], [S1[2]]]}}
    found = study_numbers.against(read(tmp_path, values, label_draw="by_trial"), "random")[0]
    assert found.found.pairs == 2 and found.found.a == (R1[0], R1[2])
    p = stats.ttest_rel([S1[0], S1[2]], [R1[0], R1[2]]).pvalue
    assert found.found.p == pytest.approx(p, rel=1e-9)
    values = {**VALUES, "simclr": {1: [[S1[0], S1[1]], [], [S1[2]]]}}  # a network has two trials
    folder = read(tmp_path / "b", values, label_draw="by_trial")
    assert study_numbers.against(folder, "random")[0].found.pairs is None


@pytest.mark.parametrize(
    "random, bn, state, short",
    [
        (10.0, 12.0, BETTER, "Yes"),
        (10.0, 19.9, UNSEEN, words.NOT_KNOWN),  # above one start is not enough
        (30.0, 12.0, WORSE, "No"),  # below one of them is
        (30.0, 33.0, WORSE, "No"),
    ],
)
def test_the_better_of_the_random_starts_decides(tmp_path, random, bn, state, short):
    spread = np.array([0.0, 0.2, -0.3])
    values = {
        "random": {100: list(random + spread)},
        "random_bn": {100: list(bn - spread)},
        "simclr": {100: [[value] for value in 20.0 + spread]},
    }
    folder = read(tmp_path, values)
    (outcome,) = study_numbers.outcomes(study_numbers.against(folder, "random"), "simclr")
    assert outcome.state == state
    assert outcome.best.other == ("random" if random > bn else "random_bn")
    answer = words.answer("simclr", [outcome], [])
    assert answer.short == short
    assert ("beats" in answer.long) == (state == BETTER)


def test_the_answer_tells_the_shares_apart(tmp_path):
    close = [[v] for v in (30.2, 30.9, 29.8)]
    folder = read(tmp_path, {**VALUES, "simclr": {**VALUES["simclr"], 100: close}})
    outcomes = study_numbers.outcomes(study_numbers.against(folder, "random"), "simclr")
    assert [each.state for each in outcomes] == [BETTER, BETTER, UNSEEN]
    answer = words.answer("simclr", outcomes, [])
    assert answer.style == words.YES and answer.short.startswith("Yes, with 1\u00a0% and 10\u00a0%")
    low = [[v] for v in (20.2, 20.9, 19.8)]
    folder = read(tmp_path / "b", {**VALUES, "simclr": {**VALUES["simclr"], 100: low}})
    outcomes = study_numbers.outcomes(study_numbers.against(folder, "random"), "simclr")
    assert words.answer("simclr", outcomes, []).short == "It depends on the number of labels"


def test_given_weights_that_are_better_turn_the_answer(tmp_path):
    given = {percent: [[v + 15, v + 15.5]] for percent, v in ((1, 15.0), (10, 27.0), (100, 33.0))}
    folder = read(tmp_path, {**VALUES, "imagenet": given}, arms=(*ARMS, GIVEN))
    outcomes = study_numbers.outcomes(study_numbers.against(folder, "random"), "simclr")
    compared = study_numbers.against(folder, "given")
    assert {each.state for each in compared} == {WORSE}
    p = stats.ttest_ind(S100, [48.25], equal_var=True).pvalue  # one network: Student's
    assert compared[-1].found.p == pytest.approx(p, rel=1e-9)
    answer = words.answer("simclr", outcomes, compared)
    assert answer.style == words.OPEN and "Not if you have the weights of imagenet" in answer.short


def test_one_run_of_each_claims_nothing(tmp_path):
    values = {
        "random": {100: [10.0]},
        "random_bn": {100: [9.0]},
        "simclr": {100: [[60.0]]},
    }
    folder = read(tmp_path, values)
    compared = study_numbers.against(folder, "random")
    assert {each.state for each in compared} == {UNTESTED} and {e.p for e in compared} == {None}
    answer = words.answer("simclr", study_numbers.outcomes(compared, "simclr"), [])
    assert answer.style == words.OPEN and "beats" not in answer.long
    assert study_numbers.sight(compared[0]) is None


def line(x):
    """A metric that is linear in the logarithm of the number of images."""
    return 10 + 3 * math.log(x)


@pytest.mark.parametrize("target, expected", [(line(13), 13.0), (line(99), 99.0)])
def test_labels_saved_are_where_the_curve_crosses(tmp_path, target, expected):
    jitter = np.array([0.3, -0.1, -0.2])
    values = {
        "random": {100: list(target + 2 * jitter)},
        "simclr": {p: [[line(images) + j] for j in jitter] for p, images in SHARES},
    }
    found = study_labels.saved(read(tmp_path, values), "simclr", "random")
    assert found.state == study_labels.WITHIN
    assert found.images == pytest.approx(expected, rel=1e-9)
    # the interval, by a plain grid of Welch's tests of the same interpolated values
    x = np.exp(np.linspace(math.log(4), math.log(400), 4001))
    ours = 10 + 3 * np.log(x)[:, None] + jitter
    theirs = np.broadcast_to(target + 2 * jitter, ours.shape)
    kept = x[stats.ttest_ind(ours, theirs, axis=1, equal_var=False).pvalue > 0.05]
    assert found.low == pytest.approx(kept[0], rel=0.02)
    assert found.high == pytest.approx(kept[-1], rel=0.02)
    assert not found.open_low and not found.open_high and found.n == (3, 3)


@pytest.mark.parametrize(
    "target, state, low, high",
    [
        (line(4) - 5, study_labels.FEWER, None, None),  # all are above, and surely so
        (line(4) - 0.01, study_labels.FEWER, 4.0, 5.0),
        (line(400) + 5, study_labels.NOT_REACHED, None, None),
        (line(400) + 0.01, study_labels.NOT_REACHED, 330.0, 400.0),
    ],
)
def test_labels_saved_end_where_the_measurements_end(tmp_path, target, state, low, high):
    jitter = np.array([0.1, 0.0, -0.1])
    values = {
        "random": {100: list(target + jitter)},
        "simclr": {p: [[line(images) + j] for j in jitter] for p, images in SHARES},
    }
    found = study_labels.saved(read(tmp_path, values), "simclr", "random")
    assert found.state == state and found.tested
    assert found.images == (4.0 if state == study_labels.FEWER else None)
    if low is None:
        assert found.low is None and found.high is None
    else:
        assert low <= found.low <= found.high <= high
    said = words.labels_saved(found, "sem_seg/mIoU")
    assert said.number.startswith("99" if state == study_labels.FEWER else "None")


def test_a_saving_that_may_be_none_is_not_shown(tmp_path):
    jitter = np.array([6.0, 0.0, -6.0])
    values = {
        "random": {100: list(line(300) + jitter)},
        "simclr": {p: [[line(images) + j] for j in jitter] for p, images in SHARES},
    }
    found = study_labels.saved(read(tmp_path, values), "simclr", "random")
    assert found.state == study_labels.WITHIN and found.open_high
    assert words.labels_saved(found, "sem_seg/mIoU").number == "No saving is shown:"


def test_a_curve_that_falls_back_has_not_reached_it(tmp_path):
    assert study_labels.reaches([4, 40, 400], [5.0, 12.0, 9.0], 10.0)[0] == study_labels.NOT_REACHED
    state, images = study_labels.reaches([4, 40, 400, 4000], [5.0, 12.0, 8.0, 12.0], 10.0)
    assert state == study_labels.WITHIN and images == pytest.approx(math.sqrt(400 * 4000))
    one = {"random": {100: R100}, "simclr": {100: VALUES["simclr"][100]}}
    assert study_labels.saved(read(tmp_path, one), "simclr", "random") is None


def test_a_slope_is_per_doubling_and_over_networks(tmp_path):
    folder = read(tmp_path)
    found = study_numbers.slope(folder, folder.arm("simclr"))
    gains = (np.array(S100) - np.array(S10)) / math.log2(10)
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / math.sqrt(3)
    assert found.mean == pytest.approx(gains.mean(), rel=1e-9)
    assert found.interval == pytest.approx((gains.mean() - half, gains.mean() + half), rel=1e-9)
    assert (found.low.images, found.high.images, found.n) == (40, 400, 3)


@pytest.mark.parametrize(
    "n, deviations, level",
    [((5, 3), (0.3, 1.0), 0.05), ((3, 3), (1.0, 2.0), 0.02), ((2, 4), (0.0, 1.0), 0.01)],
)
def test_what_welch_can_see_is_what_it_sees_in_simulations(n, deviations, level):
    least = power.smallest_by_welch(n, deviations, level=level)
    draws = np.random.default_rng(0)
    a = draws.normal(0, deviations[0], (20_000, n[0]))
    b = draws.normal(least, deviations[1], (20_000, n[1]))
    seen = (stats.ttest_ind(a, b, axis=1, equal_var=False).pvalue <= level).mean()
    assert seen == pytest.approx(0.8, abs=0.015)  # five deviations of the simulation


@pytest.mark.parametrize("n", [(1, 2), (200, 200)])
def test_tails_that_are_too_small_are_none(n):
    degrees, least = sum(n) - 2, power.smallest_difference(*n, 1.0)
    t, shift = stats.t.ppf(0.975, degrees), least / math.sqrt(1 / n[0] + 1 / n[1])

    def seen(chi):  # given the estimate of the deviation
        bound = t * chi / math.sqrt(degrees)
        both = stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)
        return both * stats.chi.pdf(chi, degrees)

    middle = math.sqrt(degrees)
    parts = integrate.quad(seen, 0, middle)[0], integrate.quad(seen, middle, middle + 40)[0]
    assert sum(parts) == pytest.approx(0.8, abs=1e-5)


def test_more_pretrainings_see_more(tmp_path):
    close = [[v] for v in (31.9, 31.2, 30.9)]
    folder = read(tmp_path, {**VALUES, "simclr": {100: close}})
    compared = study_numbers.against(folder, "random")[0]
    assert compared.state == UNSEEN
    found = study_numbers.sight(compared)
    least = [found.now, *(each for _, each in found.more)]
    assert least == sorted(least, reverse=True) and found.now > compared.found.mean
    spreads = tuple(np.std(each, ddof=1) for each in (compared.found.a, compared.found.b))
    enough, fewer = (
        power.smallest_by_welch((3 + more, 3 + more), spreads, level=compared.level)
        for more in (found.needed, found.needed - 1)
    )
    assert enough <= compared.found.mean < fewer


def runs(tmp_path, *curves, key="probe/miou"):
    for nth, curve in enumerate(curves):
        folder = tmp_path / "simclr" / str(nth)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("METHOD: {NAME: simclr}\n")
        lines = [{"iteration": 10 * n, key: value} for n, value in enumerate(curve)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return collect.find([tmp_path]).pretrainings


@pytest.mark.parametrize("key, rising", [("probe/miou", 1), ("loss", 1)])
def test_the_end_of_the_curves(tmp_path, key, rising):
    up = [[0.5 * n + j for n in range(9)] for j in (0.0, 0.3, -0.2)]
    up[1][-1] += 0.1
    found = study_steps.end(runs(tmp_path / "up", *up, key=key))
    # steps 50 and 60 are the third quarter of 80, 70 and 80 the last
    changes = [np.mean(curve[7:9]) - np.mean(curve[5:7]) for curve in up]
    assert found.mean == pytest.approx(np.mean(changes)) and found.moves == rising
    assert (found.n, found.steps, found.online) == (3, 80, key != "loss")
    flat = [[10 + (-1) ** (n // 2) * j for n in range(9)] for j in (0.1, -0.2, 0.15)]
    assert study_steps.end(runs(tmp_path / "flat", *flat, key=key)).moves == 0
    assert study_steps.end(runs(tmp_path / "one", up[0], key=key)).moves == 0
    assert study_steps.end([]) is None


def test_classes_are_ranked_by_their_gain(tmp_path):
    def metrics(sky, road):
        return {"sem_seg/mIoU": (sky + road) / 2, "sem_seg/IoU-sky": sky, "sem_seg/IoU-road": road}

    random = [metrics(50 + j, 60 - j) for j in (0.0, 0.4, -0.5)]
    ours = [[metrics(52 + j, 40 + j)] for j in (0.0, 0.3, -0.2)]
    values = {"random": {100: random}, "simclr": {100: ours}}
    folder = read(tmp_path, values)
    sky, road = study_numbers.by_class(folder, "simclr", "random", folder.shares[-1])
    assert (sky.name, road.name) == ("sky", "road")
    plain = [
        stats.ttest_ind([52, 52.3, 51.8], [50, 50.4, 49.5], equal_var=False).pvalue,
        stats.ttest_ind([40, 40.3, 39.8], [60, 59.6, 60.5], equal_var=False).pvalue,
    ]
    assert [sky.p, road.p] == pytest.approx(by_holm(plain), rel=1e-9)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "study.json is not a study"),
        ("[]", "holds a list"),
        ('{"protocols": [], "arms": [], "labels": []}', "'protocols' is"),
        ('{"protocols": [{"name": "x"}], "arms": [{}], "labels": [{}]}', "metric"),
    ],
)
def test_a_folder_without_a_study_is_one_message(tmp_path, text, says):
    with pytest.raises(InputError, match="there is no study"):
        study_data.read(tmp_path)
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(InputError, match=says):
        study_data.read(tmp_path)
    study(tmp_path, {}, arms=({"name": "a", "kind": "other"},))
    with pytest.raises(InputError, match="kind is 'other'; allowed: random, given, pretrained"):
        study_data.read(tmp_path)
