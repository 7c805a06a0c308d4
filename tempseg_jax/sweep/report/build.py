"""The report: which tables and figures, in which order, and what is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tempseg_jax.sweep.cells import CELLS, TABLES
from tempseg_jax.sweep.report import diagnostics, examples, figures, tables
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.report.examples import Comparison
from tempseg_jax.sweep.report.figures import Figure
from tempseg_jax.sweep.report.view import View, markdown

MISSING = "Missing runs"
TRAINED = ("3", "2", "1", "controls")
"""Tables with settings to compare, the paper's main claim first."""


class Section(NamedTuple):
    """A heading, then words, tables and figures."""

    title: str
    text: list[str]
    views: list[View]
    figures: list[Figure]


class Report(NamedTuple):
    """All that the page and the Markdown show."""

    title: str
    facts: list[tuple[str, str]]
    state: str  # whether runs are missing
    missing: list[str]
    sections: list[Section]
    comparison: Comparison | str  # or why there is none


READING = (
    "Every run has the same fixed budget and its last model is scored: nothing was "
    "selected on val within a run, and test, where it is given, was scored once a run. "
    "Scores are per cent on whole images at native resolution, mean ± standard "
    "deviation over seeds. Differences are paired by seed. “Seeds” is Student's t "
    "interval of those differences: it answers whether another set of seeds would "
    "agree, and grows when the gain comes and goes from run to run; an asterisk marks "
    "one (95 %) that excludes zero. “Images” is a bootstrap over images with the "
    "trained models held fixed: it may exclude zero for two runs of one setting that "
    "differ in their seed alone, so by itself it says nothing of a setting and is "
    "never marked. It takes images as independent unless the report was made with "
    "--block; of neighboring frames of a film it is otherwise too narrow."
)


def build(evidence: Evidence) -> Report:
    """Put together what there is."""
    shown = [x for x in TRAINED if x in evidence.scope.tables]
    compared = shown or ["4"]
    cells = _cells(evidence, compared)
    sections = [_results(evidence, table) for table in shown]
    if evidence.finals:
        with_classes = [x for x in compared if x != "controls"][:1] or compared[:1]
        sections += [
            _learning(evidence, compared),
            _discriminator(evidence, cells),
            _classes(evidence, with_classes),
            _calibration(evidence, cells),
            Section("Is it a regularizer?", [], [diagnostics.gap(evidence, cells)], []),
        ]
    sections.append(Section("Cost", [], [tables.cost(evidence)], []))
    return Report(
        _title(evidence),
        _facts(evidence),
        _state(evidence),
        evidence.missing(),
        sections,
        examples.compare(evidence, compared),
    )


def to_markdown(report: Report) -> str:
    """Return the tables alone, with how they came about."""
    lines = [f"# {report.title}", ""]
    lines += [f"- {name}: {value}" for name, value in report.facts]
    lines += ["", report.state, "", READING, ""]
    for section in report.sections:
        if section.text or section.views:
            lines += [f"## {section.title}", ""]
            lines += [text + "\n" for text in section.text]
            lines += map(markdown, section.views)
    if report.missing:
        lines += [f"## {MISSING}", "", *(f"- {text}" for text in report.missing), ""]
    return "\n".join(lines)


def _title(evidence: Evidence) -> str:
    data = evidence.config.data
    folder = Path(data.manual_dir or "").name
    name = folder if data.name == "folder" else evidence.dataset
    return f"Temperatures: {evidence.config.model.name} on {name}"


def _state(evidence: Evidence) -> str:
    count, diverged = len(evidence.runs) - len(evidence.finals), len(evidence.diverged)
    if not count:
        return "Every planned run has finished."
    of_them = f" ({diverged} diverged)" if diverged else ""
    verb = "is" if count == 1 else "are"
    return (
        f"{count} of {len(evidence.runs)} runs {verb} missing{of_them}; see the end. "
        "The tables are of what has finished."
    )


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    config, scope = evidence.config, evidence.scope
    splits = {
        name: values["images"]
        for final in evidence.finals.values()
        for name, values in final["splits"].items()
    }
    facts = [
        ("network", f"{config.model.name}, width {config.model.width:g}"),
        ("pretrained", Path(config.model.pretrained).name or "no"),
        (
            "each run",
            f"{evidence.steps} steps, batch {config.data.batch_size}, crop "
            f"{config.data.crop_size}², {config.precision}",
        ),
        (
            "rates",
            f"G {config.optimizer.learning_rate_g:g}, D "
            f"{config.optimizer.learning_rate_d:g}; α {config.objective.alpha:g}; λ "
            f"{config.optimizer.weight_decay:g}",
        ),
        ("scored", ", ".join(f"{n} {name}" for name, n in splits.items()) or "nothing"),
        ("seeds planned", str(scope.seeds)),
        ("runs finished", f"{len(evidence.finals)} of {len(evidence.runs)}"),
        *evidence.provenance().items(),
    ]
    if evidence.block > 1:
        text = f"drawn in runs of {evidence.block} neighbors, in the order of their ids"
        facts.append(("images", text))
    return facts


def _cells(evidence: Evidence, shown: Sequence[str]) -> list[str]:
    """The cells of these tables, each trained one once, the baseline first."""
    names = [cell for table in shown for cell in TABLES[table].cells]
    first = {evidence.cell(x): x for x in reversed(names)}
    order = dict.fromkeys(evidence.cell(x) for x in names)
    return [x if x in names else first[x] for x in order]


def _results(evidence: Evidence, table: str) -> Section:
    splits = evidence.splits()
    views = [tables.results(evidence, table, split) for split in splits]
    if table == "controls":
        views += [tables.contrasts(evidence, split) for split in splits]
    drawn = [figures.forest(evidence, table, split) for split in splits]
    return Section(
        TABLES[table].title,
        [_verdict(evidence, table, split) for split in splits],
        views,
        [figure for figure in drawn if figure],
    )


def _verdict(evidence: Evidence, table: str, split: str) -> str:
    """How many differences are told from zero, and how many are expected by chance."""
    reference, *others = TABLES[table].cells
    found = {
        CELLS[cell].title: tables.paired(evidence, cell, reference, split, "miou")
        for cell in others
        if evidence.cell(cell) != evidence.cell(reference)
    }
    known = {title: x for title, x in found.items() if x is not None and x.known}
    if not known:
        return (
            f"On {split}: no interval over seeds yet; it needs two finished seeds of a "
            "setting and of the first one."
        )
    told = [
        f"{title} ({'better' if x.difference > 0 else 'worse'})"
        for title, x in known.items()
        if x.excludes_zero
    ]
    return (
        f"On {split}, {len(told)} of {len(known)} differences in mIoU have an interval "
        f"over seeds that excludes zero{': ' * bool(told)}{', '.join(told)}. If no "
        f"setting mattered, {0.05 * len(known):.2g} would be expected by chance."
    )


def _learning(evidence: Evidence, shown: Sequence[str]) -> Section:
    cells = _cells(evidence, shown)
    drawn = [x for table in shown for x in figures.learning_curves(evidence, table)]
    text = []
    if not any(evidence.curves(cell, "val/miou") for cell in cells):
        text.append(
            "No run was evaluated while it trained (evaluate_every_epochs): there are "
            "no curves of val, only of the training loss."
        )
    return Section("Learning curves", text, [], drawn)


def _discriminator(evidence: Evidence, cells: Sequence[str]) -> Section:
    drawn = figures.discriminator(evidence, cells)
    text = [] if drawn else ["No adversarial run has finished."]
    return Section(
        "The discriminator", text, [diagnostics.discriminator(evidence, cells)], drawn
    )


def _classes(evidence: Evidence, shown: Sequence[str]) -> Section:
    views, drawn = [], []
    for table in shown:
        cells = TABLES[table].cells
        for split in evidence.splits():
            views.append(diagnostics.per_class(evidence, cells, split))
            drawn += figures.classes(evidence, cells, split)
    return Section("By class", [], views, drawn)


def _calibration(evidence: Evidence, cells: Sequence[str]) -> Section:
    views = [diagnostics.calibration(evidence, cells)]
    return Section("Calibration", [], views, figures.reliability(evidence, cells))
