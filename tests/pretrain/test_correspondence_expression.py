"""Correspondences as text: what expressions mean, their errors, and what holds of every term."""

import math

import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.correspondence import (
    Pair,
    best,
    cosine,
    geometric,
    hough_confidence,
    hungarian,
    nearest,
    one_hot,
    parse,
    random_pairs,
    salient,
    set_to_set,
    sorted_pairs,
)
from densessl.pretrain.correspondence.attention import attention
from densessl.pretrain.views import View

GRID = (5, 6)
IMAGES = 8
TERMS = ["set", "set>=0.4", "nearest", "cosine>0.7", "cosine>=0.75", "geometry", "geometry<0.5"]
ONE_TO_ONE = ["sorted", "hungarian"]  # and random, whose draws know nothing of the images
EXPRESSIONS = [
    *TERMS,
    *ONE_TO_ONE,
    "hough",
    "set & cosine>0.7 | geometry<0.5 | nearest",
    "(set | hough) & (geometry<2 | sorted)",
]


@pytest.fixture
def pair():
    return make_pair()


def make_pair(seed=0, query=None, key=None):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.rand(IMAGES, 12, *GRID, generator=generator) ** 3 for _ in "qk"]
    views = []
    for _ in "qk":
        share = torch.rand(IMAGES, 4, generator=generator)
        corner, extent = 60 * share[:, :2], 150 + 80 * share[:, 2:]
        flip = torch.rand(IMAGES, generator=generator) < 0.5
        box = torch.cat((corner, corner + extent), 1)
        image = torch.zeros(1).expand(IMAGES, 3, 160, 192)
        views.append(View(image, box, flip, torch.full((IMAGES, 2), 300)))
    query = maps[0] if query is None else query
    key = maps[1] if key is None else key
    return Pair(query, key, *views, torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------ meaning


def direct(pair):
    """Every term by the function that it stands for."""
    sets = salient(pair.query), salient(pair.key)
    levels = attention(pair.query), attention(pair.key)
    views = pair.query_view, pair.key_view, GRID
    n = math.prod(GRID)
    similarity = cosine(pair.query, pair.key)
    votes = hough_confidence(pair.query, pair.key, GRID)
    return {
        "set": set_to_set(*sets),
        "set>=0.4": set_to_set(salient(pair.query, 0.4), salient(pair.key, 0.4)),
        "nearest": one_hot(nearest(pair.query, pair.key), n),
        "cosine>0.7": similarity > 0.7,
        "cosine>=0.75": similarity >= 0.75,
        "geometry": geometric(*views, 0.7),
        "geometry<0.5": geometric(*views, 0.5),
        "random": random_pairs(*sets, torch.Generator().manual_seed(0)),
        "sorted": sorted_pairs(*levels, *sets),
        "hungarian": hungarian(pair.query, pair.key, *sets),
        "hough": one_hot(best(votes, similarity), n),
    }


def test_terms_are_their_functions(pair):
    for text, expected in direct(pair).items():
        found = parse(text)(pair)
        assert found.dtype == torch.bool and found.shape == (IMAGES, 30, 30)
        assert torch.equal(found, expected), text
        assert found.any() and not found.all(), text


def test_and_binds_tighter_and_parentheses_group(pair):
    term = direct(pair)
    a, b, c = term["set"], term["cosine>0.7"], term["nearest"]
    values = {
        "set & cosine>0.7 | nearest": a & b | c,
        "nearest | set & cosine>0.7": a & b | c,
        "set & (cosine>0.7 | nearest)": a & (b | c),
        "(set | nearest) & cosine>0.7": (a | c) & b,
        "((set)|(nearest&cosine>0.7))": a | c & b,
        "set | cosine>0.7 | nearest": a | b | c,
        "set & cosine>0.7 & nearest": a & b & c,
        "  set&cosine > 0.7\n |\tnearest ": a & b | c,
    }
    for text, expected in values.items():
        assert torch.equal(parse(text)(pair), expected), text
    assert not torch.equal(
        values["set & cosine>0.7 | nearest"], values["set & (cosine>0.7 | nearest)"]
    )


def test_setsims_positives_as_text(pair):
    pairs = set_to_set(salient(pair.query), salient(pair.key)) & (
        cosine(pair.query, pair.key) > 0.2
    )
    pairs |= geometric(pair.query_view, pair.key_view, GRID, 0.5)
    pairs |= one_hot(nearest(pair.query, pair.key), 30)
    assert torch.equal(parse("set & cosine>0.2 | geometry<0.5 | nearest")(pair), pairs)


def test_random_is_drawn_once_in_an_evaluation_and_anew_in_the_next(pair):
    assert torch.equal(parse("random & random")(pair), parse("random")(make_pair()))
    again = parse("random")(pair)
    assert not torch.equal(again, parse("random")(make_pair()))


def test_cosine_and_attention_are_computed_once_for_a_pair(pair, monkeypatch):
    from densessl.pretrain.correspondence import pair as module

    calls = []
    for name in ("cosine", "attention"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: calls.append(n) or f(*a))
    parse("set & cosine>0.2 | set>=0.5 & cosine>0.3 | nearest | hough | sorted | hungarian")(pair)
    assert sorted(calls) == ["attention", "attention", "cosine"]  # of query and key


def test_no_gradient_reaches_the_features():
    z = torch.rand(IMAGES, 12, *GRID, requires_grad=True)
    pair = make_pair(query=z, key=z)
    assert not (pair.cosine.requires_grad or pair.attention[0].requires_grad)


# ------------------------------------------------------------------------------ a function of yours


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write(body)`` puts a function ``mine(pair)`` with this body into ``mine.py``."""
    monkeypatch.chdir(tmp_path)

    def put(body: str) -> None:
        (tmp_path / "mine.py").write_text(f"import torch\n\n\ndef mine(pair):\n    {body}\n")

    return put


def test_a_function_of_the_users_is_a_term(pair, write):
    write("return pair.cosine > 0.7")
    assert torch.equal(parse("mine.py:mine")(pair), pair.cosine > 0.7)
    mixed = parse("set&mine.py:mine|nearest")(pair)
    assert torch.equal(mixed, parse("set & cosine>0.7 | nearest")(pair))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_weights_combine_by_product_and_maximum(pair, write, dtype):
    write(f"return pair.cosine.to({dtype})")
    weight = pair.cosine.to(dtype)
    weight = weight if dtype == torch.float64 else weight.float()
    term = direct(pair)
    values = {
        "mine.py:mine": weight,
        "mine.py:mine & set": weight * term["set"],
        "nearest | mine.py:mine": torch.where(term["nearest"], weight.clamp_min(1), weight),
        "mine.py:mine & mine.py:mine": weight * weight,
        "set & nearest | mine.py:mine & geometry": torch.maximum(
            (term["set"] & term["nearest"]).to(weight.dtype), weight * term["geometry"]
        ),
    }
    for text, expected in values.items():
        found = parse(text)(pair)
        assert found.dtype == weight.dtype and not found.requires_grad
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_a_function_gets_the_pair_once_in_an_evaluation(pair, write):
    write("mine.seen = [*getattr(mine, 'seen', []), pair]; return pair.cosine > 0")
    expression = parse("mine.py:mine & set | mine.py:mine & nearest")
    expression(pair)
    seen = expression.tree.parts[0].parts[0].function.seen
    assert len(seen) == 1 and seen[0] is pair


@pytest.mark.parametrize(
    "body, message",
    [
        ("return 'pairs'", r"a tensor \[8, 30, 30\]; it returned 'pairs'"),
        ("return pair.cosine[0]", r"\[8, 30, 30\]; it returned \[30, 30\]"),
        ("return pair.cosine.long()", "bool or floating-point weights, not torch.int64"),
        ("return pair.cosine - 1", "at least 0; its smallest is -0"),
        ("return pair.cosine * float('nan')", "at least 0; its smallest is nan"),
        ("return (pair.cosine > 0).to('meta')", "weights on cpu, not device.*meta"),
    ],
)
def test_what_a_function_returns_is_checked(pair, write, body, message):
    write(body)
    with pytest.raises(InputError, match=f"^DENSE.CORRESPONDENCE: mine.py:mine must .*{message}"):
        parse("mine.py:mine | set")(pair)


def test_a_file_without_the_function_is_refused_at_once(write):
    write("return None")
    with pytest.raises(InputError, match="Did you mean 'mine'"):
        parse("set | mine.py:mines")
    with pytest.raises(InputError, match="no file 'other.py'"):
        parse("set | other.py:mine")
    with pytest.raises(InputError, match="is no function"):
        parse("mine.py:__name__")


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "text, place, message",
    [
        ("set & nearst", 6, r"unknown term nearst\. Did you mean nearest\?"),
        ("set | Geometry<0.5", 6, "unknown term Geometry. Did you mean geometry?"),
        ("set | 0.5", 6, "unknown term 0.5"),
        ("", 0, "expected a term"),
        ("set &", 5, "expected a term"),
        ("set || nearest", 5, r"expected a term, not \|"),
        ("set | ) & nearest", 6, r"expected a term, not \)"),
        ("set nearest", 4, "expected | or &"),
        ("(set | nearest", 0, r"no \) for this \("),
        ("set | (nearest & (hough)", 6, r"no \) for this \("),
        ("set) | nearest", 3, r"no \( for this \)"),
        ("set | cosine", 12, "cosine needs a threshold, as in cosine>0.2"),
        ("cosine<0.2", 6, "cosine takes > or >="),
        ("set>0.5", 3, "set takes >="),
        ("geometry>=0.5", 8, "geometry takes <, as in geometry<0.5"),
        ("nearest>0.5", 7, "nearest takes no threshold"),
        ("geometry<set", 9, "expected a number, as in geometry<0.5"),
        ("geometry<", 9, "expected a number"),
        ("geometry<0", 9, "the threshold of geometry must be positive"),
        ("set>=0 | nearest", 5, r"the threshold of set must be in \(0, 1\]"),
        ("set>=1.01", 5, r"must be in \(0, 1\]"),
        ("cosine>1.5", 7, r"must be in \[-1, 1\]"),
        ("cosine>nan", 7, "expected a number"),
        ("set\n  |  nearst", 6, "nearest"),  # shown in one line
    ],
)
def test_errors_show_the_place(text, place, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(text)
    first, shown, caret = str(caught.value).split("\n")[:3]
    assert first.startswith("DENSE.CORRESPONDENCE: ")
    assert shown.strip() == " ".join(text.split())
    assert caret == " " * (2 + place) + "^"


def test_an_unknown_term_lists_the_terms():
    with pytest.raises(InputError) as caught:
        parse("everything", where="MINE")
    message = str(caught.value)
    assert message.startswith("MINE: ")
    for term in ("set>=0.7", "nearest", "cosine>0.2", "geometry<0.5", "hough", "file.py:function"):
        assert term in message


@pytest.mark.parametrize(
    "text", ["cosine>-0.5", "cosine>=.5", "cosine>5e-1", "set>=1", "geometry<2."]
)
def test_numbers_are_read_as_python_writes_them(text, pair):
    assert parse(text)(pair).shape == (IMAGES, 30, 30)


# ------------------------------------------------------------------------ what holds of every one


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_image_does_not_depend_on_the_others(text, pair):
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(1))

    def pick(view):
        return View(*(part[order] for part in (view.image, view.box, view.flip, view.size)))

    permuted = Pair(pair.query[order], pair.key[order], pick(pair.query_view), pick(pair.key_view))
    assert torch.equal(parse(text)(permuted), parse(text)(pair)[order])


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_flipping_both_views_flips_the_correspondence(text, pair):
    flipped = Pair(
        pair.query.flip(3), pair.key.flip(3), _toggled(pair.query_view), _toggled(pair.key_view)
    )
    found = parse(text)(flipped).view(IMAGES, *GRID, *GRID).flip(2, 4).reshape(IMAGES, 30, 30)
    assert torch.equal(found, parse(text)(pair))


def _toggled(view):
    return View(view.image, view.box, ~view.flip, view.size)


@pytest.mark.parametrize("text", [t for t in EXPRESSIONS if "geometry" not in t])
def test_features_alone_know_nothing_of_the_views(text, pair):
    views = make_pair(seed=1)
    other = Pair(pair.query, pair.key, views.query_view, _toggled(views.key_view))
    assert torch.equal(parse(text)(other), parse(text)(pair))


@pytest.mark.parametrize("text", EXPRESSIONS)
@pytest.mark.parametrize("factor", [0.037, 8.0, 113.0])
def test_scaling_the_features_changes_no_match(text, factor, pair):
    scaled = Pair(factor * pair.query, pair.key / factor, pair.query_view, pair.key_view)
    assert torch.equal(parse(text)(scaled), parse(text)(pair))


@pytest.mark.parametrize("text", ["geometry", "geometry<0.5", "nearest", "geometry & nearest"])
def test_a_view_belongs_to_itself(text, pair):
    box = torch.tensor([[20.0, 30.0, 20 + 240.0, 30 + 200.0]]).expand(IMAGES, 4)  # square cells
    view = View(pair.query_view.image, box, pair.query_view.flip, pair.query_view.size)
    itself = Pair(pair.query, pair.query, view, view)
    identity = torch.eye(30).bool().expand(IMAGES, 30, 30)
    assert torch.equal(parse(text)(itself), identity)


@pytest.mark.parametrize("text", [*ONE_TO_ONE, "random"])
def test_one_to_one_terms_have_as_many_pairs_as_the_smaller_set(text, pair):
    found = parse(text)(pair)
    assert found.sum(1).max() == 1 and found.sum(2).max() == 1
    sizes = torch.minimum(salient(pair.query).sum(1), salient(pair.key).sum(1))
    assert torch.equal(found.sum((1, 2)), sizes)


@pytest.mark.parametrize("text", ["nearest", "hough"])
def test_matches_are_one_for_every_query(text, pair):
    assert torch.equal(parse(text)(pair).sum(2), torch.ones(IMAGES, 30, dtype=torch.long))


def test_thresholds_are_monotonic(pair):
    for looser, tighter in (
        ("set>=0.3", "set>=0.8"),
        ("geometry<2", "geometry<0.4"),
        ("cosine>0.1", "cosine>0.8"),
    ):
        assert (parse(tighter)(pair) <= parse(looser)(pair)).all()
        assert parse(tighter)(pair).sum() < parse(looser)(pair).sum()


def test_a_cosine_on_the_threshold_is_at_least_it_and_not_above_it():
    pair = make_pair(query=torch.zeros(IMAGES, 12, *GRID))  # every cosine is exactly 0
    assert parse("cosine>=0")(pair).all() and not parse("cosine>0")(pair).any()


def test_hough_takes_the_nearest_where_nothing_votes():
    pair = make_pair()
    opposite = Pair(pair.query, -pair.key, pair.query_view, pair.key_view)
    assert torch.equal(parse("hough")(opposite), parse("nearest")(opposite))


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_autocast_changes_nothing(text, pair):
    outside = parse(text)(pair)
    with torch.autocast("cpu", torch.bfloat16):
        inside = parse(text)(make_pair())
    assert torch.equal(inside, outside)


def test_constant_maps_are_no_trouble():
    """As of a collapsed network: no salient position, and everything is as near as everything."""
    flat = torch.full((IMAGES, 12, *GRID), 0.3)
    pair = make_pair(query=flat, key=flat)
    for text in ("set", "random", "sorted", "hungarian"):
        assert not parse(text)(pair).any()
    first = one_hot(torch.zeros(IMAGES, 30, dtype=torch.long), 30)
    assert torch.equal(parse("nearest")(pair), first)
    identity = torch.eye(30).bool().expand(IMAGES, 30, 30)
    assert torch.equal(parse("hough")(pair), identity)  # no offset has more votes than none
    nothing = make_pair(query=0 * flat, key=0 * flat)
    assert torch.equal(parse("hough")(nothing), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("text", [t for t in [*EXPRESSIONS, "random"] if t != "hungarian"])
def test_on_a_gpu_nothing_waits_and_the_pairs_are_those_of_the_cpu(text, pair):
    def on_gpu():
        maps = (z.cuda() for z in (pair.query, pair.key))
        views = (view.to("cuda") for view in (pair.query_view, pair.key_view))
        return Pair(*maps, *views, torch.Generator().manual_seed(0))

    expression = parse(text)
    expression(on_gpu())  # builds the constants of the grid
    there = on_gpu()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = expression(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # A cosine on the very threshold may fall on either side.
    assert (found.cpu() != expression(pair)).float().mean() < 1e-3
