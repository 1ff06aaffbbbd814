"""The one model of all tables: grouped columns, rows that are published, measured or both."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from .spread import t_interval


@dataclass(frozen=True)
class Column:
    """A metric under one protocol and variant.

    ``key`` names it in the cells of a row, ``head`` and ``group`` are what papers print above it.
    ``options``: what the config of the fine-tuning must say, e.g. the classes of a k-NN.
    """

    key: str
    head: str
    group: str
    protocol: str
    variant: str
    metric: str
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Chance:
    """How a cell compares with a start without pretraining.

    ``control``: the one that it is harder to tell from, ``p`` that test's, ``holm`` corrected for
    the rows of the table.
    """

    control: str
    p: float
    holm: float


@dataclass
class Cell:
    """Mean and sample standard deviation (NaN for one) of ``n`` trials or pretrainings of a metric.

    ``units`` are the pretrainings' means over their fine-tunings, ``fine_tunings`` how many each
    has; both are empty where nothing is known of them, and a control has ``units`` alone, one for
    each trial. Of several pretrainings ``mean``, ``std`` and ``n`` are those of ``units``, and
    ``std_within`` is the pooled deviation between fine-tunings; of one, those of its trials.

    ``chance``: the test against a control, None without one; ``hidden``: nothing may be read from
    the number, as the row's main metric is not distinguishable from the control, and ``instead`` is
    what stands in its place.

    ``n`` is 0, and the mean NaN, where the metric is undefined in every trial. ``delta``: over the
    baseline's mean. ``difference``: ours − published, None where there is nothing published that
    may be compared. ``within``: whether the published value lies in the trials' 95 % t interval,
    None for one trial.
    """

    mean: float
    std: float
    n: int
    delta: float | None = None
    difference: float | None = None
    within: bool | None = None
    best: bool = False
    second: bool = False
    units: tuple[float, ...] = ()
    fine_tunings: tuple[int, ...] = ()
    std_within: float = math.nan
    chance: Chance | None = None
    hidden: bool = False
    instead: str = ""

    @property
    def of_several(self) -> bool:
        """Whether it is of several pretrainings."""
        return len(self.fine_tunings) > 1

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % t interval of the mean over trials, or over pretrainings; None for one."""
        return t_interval(self.mean, self.std, self.n)

    def compare(self, published: float) -> None:
        """Set ``difference`` and ``within`` against a published value, where there is a mean."""
        if not self.n:
            return
        self.difference = self.mean - published
        interval = self.interval
        self.within = interval and interval[0] <= published <= interval[1]


@dataclass
class PublishedCell:
    """A published number: NaN where the paper gives only ``delta``, its difference from a row.

    ``variants``: those of the protocol that it may have been measured with, empty where the paper
    does not tell.
    """

    mean: float
    delta: float | None = None
    suspect: bool = False
    variants: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    best: bool = False
    second: bool = False


@dataclass
class Row:
    """One pretrained model or recipe, with what a paper printed, what our trials measured, or both.

    ``cells`` and ``published`` are by column key; what is not there is absent. ``facts``: what
    stands between the label and the numbers, by head. ``section``: index into the table's.
    ``peers``: the section with whose numbers the row is compared and ranked; its own if None.
    ``published_as``: the paper's label, where ours says more. ``repeats``: another model of the row
    before, whose published numbers are the same. ``notes``: footnotes of the measured line.
    ``seeds`` are those of the fine-tunings, ``pretrained`` those of the pretrainings, as far as
    records tell; ``control``: which start without pretraining the row is of.
    """

    label: str
    method: str = ""
    data: str = ""
    epochs: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    pretrained: list[int] = field(default_factory=list)
    control: str = ""
    cells: dict[str, Cell] = field(default_factory=dict)
    published: dict[str, PublishedCell] = field(default_factory=dict)
    section: int = 0
    peers: int | None = None
    published_as: str = ""
    repeats: bool = False
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """published, measured or both."""
        if self.measured and self.published:
            return "both"
        return "measured" if self.measured else "published"

    @property
    def measured(self) -> bool:
        """Whether it has trials of ours, be their metrics defined or not."""
        return bool(self.seeds or self.cells)

    def is_among(self, section: int) -> bool:
        """Whether the row is compared and ranked with that section's numbers."""
        return section == (self.section if self.peers is None else self.peers)


@dataclass
class Table:
    """Columns, rows in sections (one without a title where there is but one), and what to say.

    ``cite``: the paper's table that this is, empty for a table of records alone. ``baselines``: the
    label of each section's baseline, empty where it has none.
    """

    title: str
    columns: list[Column]
    rows: list[Row]
    first: str = "method"
    facts: tuple[str, ...] = ()
    sections: list[str] = field(default_factory=lambda: [""])
    baselines: list[str] = field(default_factory=lambda: [""])
    cite: str = ""
    mini: bool = False
    decimals: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def nested(self) -> bool:
        """Whether a row is of several pretrainings; then each says how many it is of."""
        return any(cell.of_several for row in self.rows for cell in row.cells.values())


def compare_with_baseline(rows: Iterable[Row], baseline: Row) -> None:
    """Set the ``delta`` of all measured cells that the baseline has, too, but for its own."""
    for row in rows:
        for key, cell in row.cells.items():
            base = baseline.cells.get(key)
            if row is not baseline and base and base.n and cell.n:
                cell.delta = cell.mean - base.mean


def mark_best(table: Table) -> None:
    """Mark the best and the second of every column, in each section, of ours and of the published.

    Ours and published numbers are not ranked against each other. Ties as printed count as one;
    where all are equal none is best, and a second needs a third. Suspect numbers have no rank, nor
    have those that are not distinguishable from a random start.
    """
    for section in range(len(table.sections)):
        rows = [row for row in table.rows if row.is_among(section)]
        for column in table.columns:
            ours = [row.cells[column.key] for row in rows if column.key in row.cells]
            theirs = [
                row.published[column.key]
                for row in rows
                if column.key in row.published and not row.repeats
            ]
            _rank([cell for cell in ours if not cell.hidden], table.decimals)
            _rank([cell for cell in theirs if not cell.suspect], table.decimals)


def _rank(cells: list[Cell] | list[PublishedCell], decimals: int) -> None:
    printed = [(round(cell.mean, decimals), cell) for cell in cells if not math.isnan(cell.mean)]
    places = sorted({mean for mean, _ in printed}, reverse=True)
    for mean, cell in printed:
        cell.best = len(places) > 1 and mean == places[0]
        cell.second = len(places) > 2 and mean == places[1]
