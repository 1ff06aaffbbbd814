"""Correspondences written as text: ``set & cosine>0.2 | geometry<0.5 | nearest``.

expression  =  product { "|" product }          in any; of weights, the largest
product     =  factor { "&" factor }            in all; of weights, the product
factor      =  term | "(" expression ")"
term        =  name [ comparison number ] | path/to/file.py:function
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch

from densessl.core import errors
from densessl.core.errors import InputError
from densessl.core.external import failure, load_object

from .attention import set_to_set
from .geometry import geometric
from .hough import best, confidence_of
from .pair import Pair
from .pixels import assignment, random_pairs, sorted_pairs
from .similarity import one_hot

Weights = torch.Tensor  # bool or float [B, Nq, Nk]
SALIENT = 0.7  # attention of a salient position, unless an expression says otherwise

# ------------------------------------------------------------------------------------------ terms


def _sets(pair: Pair, threshold: float = SALIENT) -> tuple[torch.Tensor, torch.Tensor]:
    """The salient positions of query and key, bool ``[B, N]`` each."""
    query, key = pair.attention
    return query >= threshold, key >= threshold


def _sorted(pair: Pair) -> Weights:
    (query, key), (query_set, key_set) = pair.attention, _sets(pair)
    return sorted_pairs(query, key, query_set, key_set)


def _nearest(pair: Pair) -> Weights:
    return one_hot(pair.nearest, math.prod(pair.grid))


def _hough(pair: Pair) -> Weights:
    match = best(confidence_of(pair.cosine, pair.grid), pair.cosine)
    return one_hot(match, math.prod(pair.grid))


def _cosine(pair: Pair, comparison: str, value: float) -> Weights:
    return pair.cosine >= value if comparison == ">=" else pair.cosine > value


@dataclass(frozen=True)
class Kind:
    """A term that an expression may have: how it is written, and what it computes."""

    example: str  # as messages show it
    compute: Callable[[Pair, str, float], Weights]  # of a pair, comparison and threshold
    comparisons: tuple[str, ...] = ()
    default: float | None = None  # of the threshold, where it may be left out
    allowed: Callable[[float], bool] = lambda value: True
    range: str = ""  # `allowed` in words


KINDS = {
    "set": Kind(
        "set>=0.7",
        lambda pair, _, value: set_to_set(*_sets(pair, value)),
        comparisons=(">=",),
        default=SALIENT,
        allowed=lambda value: 0 < value <= 1,
        range="in (0, 1]",
    ),
    "nearest": Kind("nearest", lambda pair, *_: _nearest(pair)),
    "cosine": Kind(
        "cosine>0.2",
        _cosine,
        comparisons=(">", ">="),
        allowed=lambda value: -1 <= value <= 1,
        range="in [-1, 1]",
    ),
    "geometry": Kind(
        "geometry<0.5",
        lambda pair, _, value: geometric(pair.query_view, pair.key_view, pair.grid, value),
        comparisons=("<",),
        default=0.7,
        allowed=lambda value: value > 0,
        range="positive",
    ),
    "random": Kind("random", lambda pair, *_: random_pairs(*_sets(pair), pair.generator)),
    "sorted": Kind("sorted", lambda pair, *_: _sorted(pair)),
    "hungarian": Kind("hungarian", lambda pair, *_: assignment(pair.cosine, *_sets(pair))),
    "hough": Kind("hough", lambda pair, *_: _hough(pair)),
}
FILE = "path/to/file.py:function"


@dataclass(frozen=True)
class Term:
    """One of KINDS with its threshold."""

    name: str
    comparison: str = ""
    value: float = 0.0

    def __call__(self, pair: Pair) -> Weights:
        return KINDS[self.name].compute(pair, self.comparison, self.value)


class UserTerm:
    """A function of the user's, which gets the pair and returns weights ``[B, Nq, Nk]``."""

    def __init__(self, text: str, where: str):
        self.text, self.where = text, where
        self.function = load_object(text, "correspondence", where)
        if not callable(self.function):
            self._refuse("is no function", self.function)
        self.seen = False

    def __call__(self, pair: Pair) -> Weights:
        try:
            weights = self.function(pair)
        except Exception as error:
            line, message = failure(error, inspect.getsourcefile(self.function) or "")
            raise InputError(f"{self.where}: {self.text}, line {line}: {message}") from error
        expected = [len(pair.query), *(math.prod(z.shape[2:]) for z in (pair.query, pair.key))]
        if not isinstance(weights, torch.Tensor):
            self._refuse(f"must return a tensor {expected}; it returned", weights)
        if list(weights.shape) != expected:
            self._refuse(f"must return a tensor {expected}; it returned", list(weights.shape))
        if weights.dtype != torch.bool and not weights.is_floating_point():
            self._refuse("must return bool or floating-point weights, not", weights.dtype)
        if weights.device != pair.query.device:
            self._refuse(f"must return weights on {pair.query.device}, not", weights.device)
        if not self.seen and not (weights >= 0).all():  # once: looking waits for the device
            self._refuse("must return weights of at least 0; its smallest is", weights.min().item())
        self.seen = True
        half = weights.dtype in (torch.float16, torch.bfloat16)
        return weights.float() if half else weights

    def _refuse(self, reason: str, value: object) -> None:
        raise InputError(f"{self.where}: {self.text} {reason} {value!r}")


@dataclass(frozen=True)
class Combined:
    """Correspondences joined by ``|`` or ``&``."""

    sign: str
    parts: tuple["Node", ...]


Node = Term | UserTerm | Combined

# ------------------------------------------------------------------------------------- evaluation


class Expression:
    """A correspondence from text; call it with a :class:`Pair` to get weights ``[B, Nq, Nk]``.

    The result is bool when all its parts are, else float32 (float64 where a part is). A term that
    stands twice is computed once. See :func:`parse`.
    """

    def __init__(self, text: str, tree: Node):
        self.text, self.tree = text, tree

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    @torch.no_grad()
    def __call__(self, pair: Pair) -> Weights:
        return self._value(self.tree, pair, {})

    def _value(self, node: "Node", pair: Pair, known: dict["Node", Weights]) -> Weights:
        if isinstance(node, Combined):
            parts = [self._value(part, pair, known) for part in node.parts]
            # On bools, the larger is the or and the product the and.
            return reduce(torch.maximum if node.sign == "|" else torch.mul, parts)
        if node not in known:
            known[node] = node(pair)
        return known[node]


# ---------------------------------------------------------------------------------------- parsing


def parse(text: str, where: str = "DENSE.CORRESPONDENCE") -> Expression:
    """The correspondence that ``text`` says, as an :class:`Expression`.

    Terms joined by ``|`` (or) and ``&`` (and, which binds tighter), with parentheses:

    ``set``, ``set>=0.7``       salient x salient positions (SetSim eq. 5), by sum of \\|z\\|
    ``nearest``                 every query position and its nearest key position
    ``cosine>0.2``, ``>=``      at least so similar backbone features
    ``geometry``, ``<0.5``      closer than 0.7 (0.5) cell diagonals in source pixels (PixPro eq. 1)
    ``random``, ``sorted``, ``hungarian``   salient positions one to one (SetSim Table 2)
    ``hough``                   every query position and its best match by Hough voting (HoughCL)
    ``path/to/file.py:function``   a function of :class:`Pair` that returns ``[B, Nq, Nk]``

    ``where`` is the option, for messages. Raises InputError that shows the place of an error.
    """
    return Expression(text, _Parser(text, where).parse())


TOKEN = re.compile(r"\s*(?:(>=|<=|==|[|&()<>=])|([^\s|&()<>=]+))")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)


class _Parser:
    """Reads an expression from left to right, one token ahead."""

    def __init__(self, text: str, where: str):
        self.text, self.where = " ".join(text.split()), where  # one line, for the caret
        found = list(TOKEN.finditer(self.text))
        self.tokens = [(m[1] or m[2], m.start(m.lastindex or 0)) for m in found]
        self.tokens.append(("", len(self.text)))  # the end
        self.at = 0
        self.functions: dict[str, UserTerm] = {}

    def parse(self) -> Node:
        tree = self._joined("|")
        if self._token:
            self._fail("expected | or &" if self._token != ")" else "no ( for this )")
        return tree

    @property
    def _token(self) -> str:
        return self.tokens[self.at][0]

    def _take(self, *tokens: str) -> str:
        """The next token, if it is one of ``tokens``; then the one after it is next."""
        found = self._token
        if found not in tokens or not found:
            return ""
        self.at += 1
        return found

    def _joined(self, sign: str) -> Node:
        part = self._factor if sign == "&" else lambda: self._joined("&")
        parts = [part()]
        while self._take(sign):
            parts.append(part())
        return Combined(sign, tuple(parts)) if len(parts) > 1 else parts[0]

    def _factor(self) -> Node:
        if not self._take("("):
            return self._term()
        opened = self.at - 1
        inner = self._joined("|")
        if not self._take(")"):
            self._fail("expected | or & or )" if self._token else "no ) for this (", opened)
        return inner

    def _term(self) -> Term | UserTerm:
        word, place = self._token, self.at
        if not word or word in "|&()<>=" or word in ("<=", "=="):
            self._fail("expected a term" + (f", not {word}" if word else ""), allowed=True)
        self.at += 1
        if ".py" in word:
            if word not in self.functions:
                self.functions[word] = UserTerm(word, self.where)
            return self.functions[word]
        if word not in KINDS:
            meant = errors.nearest(word, KINDS)
            hint = f". Did you mean {meant}?" if meant else ""
            self._fail(f"unknown term {word}{hint}", place, allowed=True)
        return self._threshold(word)

    def _threshold(self, name: str) -> Term:
        """The rest of a term after its name: a comparison and a number, or nothing."""
        kind = KINDS[name]
        comparison = self._take("<", "<=", ">", ">=", "=", "==")
        if not comparison and kind.comparisons and kind.default is None:
            self._fail(f"{name} needs a threshold, as in {kind.example}")
        if not comparison:
            return Term(name, "".join(kind.comparisons), kind.default or 0.0)
        if not kind.comparisons:
            self._fail(f"{name} takes no threshold", self.at - 1)
        if comparison not in kind.comparisons:
            takes = " or ".join(kind.comparisons)
            self._fail(f"{name} takes {takes}, as in {kind.example}", self.at - 1)
        if not NUMBER.match(self._token):
            self._fail(f"expected a number, as in {kind.example}")
        value = float(self._token)
        if not kind.allowed(value):
            self._fail(f"the threshold of {name} must be {kind.range}")
        self.at += 1
        return Term(name, comparison, value)

    def _fail(self, reason: str, token: int | None = None, allowed: bool = False) -> None:
        """Raise InputError with the text and a caret under a token (the next one)."""
        place = self.tokens[self.at if token is None else token][1]
        terms = f"\nTerms: {', '.join(kind.example for kind in KINDS.values())}, {FILE}"
        raise InputError(
            f"{self.where}: {reason}\n  {self.text}\n  {' ' * place}^{terms if allowed else ''}"
        )
