"""Put the report together: which tables and figures, in which order."""

from collections.abc import Sequence
from typing import NamedTuple

from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report import (
    cost,
    diagnostics,
    examples,
    figures,
    learning_rates,
    overview,
    tables,
    view,
)
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.drawing import Figure
from tempseg_jax.sweep.report.examples import Comparison
from tempseg_jax.sweep.report.view import TextTable

PAPER = ("3", "2", "1")
"""The paper's tables that compare settings; table 3, the main claim, comes first."""
COST = "4"
"""The paper's table of costs, which every report has."""


class Section(NamedTuple):
    """A heading, followed by paragraphs, tables and figures."""

    title: str
    text: list[str]
    tables: list[TextTable]
    figures: list[Figure]


class Report(NamedTuple):
    """The content of the report, shown as HTML or as Markdown."""

    title: str
    facts: list[tuple[str, str]]
    state: str  # whether runs are missing
    missing: list[str]
    sections: list[Section]
    comparison: Comparison | str  # or the reason why there is none


def build(sweep: SweepResults) -> Report:
    """Build the report from the runs that have finished."""
    own = [x for x in TABLES if x not in (*PAPER, COST) and x in sweep.scope.tables]
    compared = [*(x for x in PAPER if x in sweep.scope.tables), *own]
    # The contrasts of all tables follow the first table that is not the paper's.
    questions = next(iter(own or compared), None)
    sections = _answers(sweep) if "controls" in own else []
    if {"grid", "rates"} & set(own):
        sections.append(_learning_rates(sweep))
    sections += [_results(sweep, x, contrasts=x == questions) for x in compared]
    compared = compared or [COST]
    cells = _cells(sweep, compared)
    if sweep.finals:
        without_controls = [x for x in compared if x != "controls"]
        sections += [
            _learning_curves(sweep, compared),
            _discriminator(sweep, cells),
            _classes(sweep, (without_controls or compared)[0]),
            _calibration(sweep, cells),
            Section(
                "Regularization: the train–val gap",
                [],
                [diagnostics.train_val_gap(sweep, cells)],
                [],
            ),
        ]
    sections.append(
        Section("Cost of the discriminator", [], [cost.cost_table(sweep)], [])
    )
    return Report(
        overview.title(sweep),
        overview.facts(sweep),
        overview.state(sweep),
        sweep.missing(),
        sections,
        examples.compare(sweep, compared),
    )


def to_markdown(report: Report) -> str:
    """Return the report as Markdown, without the figures and examples."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {name}: {value}" for name, value in report.facts]
    lines += ["", report.state, "", f"## {overview.HOW_TO_READ}", ""]
    lines += [*(f"- **{name}.** {text}" for name, text in overview.READING), ""]
    for section in report.sections:
        if section.text or section.tables:
            lines += [f"## {section.title}", ""]
            lines += [text + "\n" for text in section.text]
            lines += map(view.to_markdown, section.tables)
    if report.missing:
        lines += [f"## {overview.MISSING}", ""]
        lines += [*(f"- {text}" for text in report.missing), ""]
    return "\n".join(lines)


def _cells(sweep: SweepResults, compared: Sequence[str]) -> list[str]:
    """Return the cells of these tables with runs, each once, the reference first."""
    names = [cell for table in compared for cell in TABLES[table].cells]
    first = {sweep.cell(x): x for x in reversed(names)}
    order = dict.fromkeys(sweep.cell(x) for x in names)
    return sweep.with_runs([x if x in names else first[x] for x in order])


def _answers(sweep: SweepResults) -> list[Section]:
    """Show what the discriminator and the temperature add, if any of it is known."""
    drawn = [figures.answers({"": sweep}, split) for split in sweep.splits()]
    shown = [figure for figure in drawn if figure]
    return [Section("Does it help?", [], [], shown)] if shown else []


def _learning_rates(sweep: SweepResults) -> Section:
    text = learning_rates.advice(sweep)
    return Section("Learning rates", text, [learning_rates.table(sweep)], [])


def _results(sweep: SweepResults, table: str, *, contrasts: bool) -> Section:
    splits = sweep.splits()
    shown = [tables.results(sweep, table, split) for split in splits]
    if contrasts:
        found = [tables.contrasts(sweep, split) for split in splits]
        shown += [table for table in found if table.rows]
    drawn = [figures.forest(sweep, table, split) for split in splits]
    return Section(
        TABLES[table].title,
        [_summary(sweep, table, split) for split in splits],
        shown,
        [figure for figure in drawn if figure],
    )


def _summary(sweep: SweepResults, table: str, split: str) -> str:
    """Say which intervals over seeds exclude zero, and how many would by chance."""
    reference, *others = TABLES[table].cells
    differences = {
        CELLS[cell].title: tables.paired_difference(
            sweep, cell, reference, split, "miou"
        )
        for cell in others
        if sweep.cell(cell) != sweep.cell(reference)
    }
    with_interval = {
        title: x for title, x in differences.items() if x is not None and x.has_bounds
    }
    if not with_interval:
        return (
            f"On {split} there is no confidence interval over seeds yet: it needs two "
            "seeds finished by both a setting and the first setting, "
            f"“{CELLS[reference].title}”."
        )
    effects = [
        f"{title} ({'better' if x.difference > 0 else 'worse'})"
        for title, x in with_interval.items()
        if x.excludes_zero
    ]
    count = len(with_interval)
    return (
        f"On {split}, the confidence interval over seeds excludes zero for "
        f"{len(effects)} of {count} differences in mIoU"
        f"{': ' * bool(effects)}{', '.join(effects)}. If no setting had an effect, "
        f"{0.05 * count:.2g} would be expected by chance."
    )


def _learning_curves(sweep: SweepResults, compared: Sequence[str]) -> Section:
    cells = _cells(sweep, compared)
    drawn = [x for table in compared for x in figures.learning_curves(sweep, table)]
    text = []
    if not any(sweep.curves(cell, "val/miou") for cell in cells):
        text.append(
            "No run was evaluated during training (evaluate_every_epochs), so there "
            "are no validation curves."
        )
    return Section("Learning curves", text, [], drawn)


def _discriminator(sweep: SweepResults, cells: Sequence[str]) -> Section:
    drawn = figures.discriminator(sweep, cells)
    text = [] if drawn else ["No finished run has logged outputs of a discriminator."]
    table = diagnostics.discriminator(sweep, cells)
    return Section("The discriminator", text, [table], drawn)


def _classes(sweep: SweepResults, table: str) -> Section:
    cells, splits = sweep.with_runs(TABLES[table].cells), sweep.splits()
    shown = [diagnostics.per_class(sweep, cells, split) for split in splits]
    drawn = [x for split in splits for x in figures.classes(sweep, cells, split)]
    return Section("IoU by class", [], shown, drawn)


def _calibration(sweep: SweepResults, cells: Sequence[str]) -> Section:
    table = diagnostics.calibration(sweep, cells)
    return Section("Calibration", [], [table], figures.reliability(sweep, cells))
