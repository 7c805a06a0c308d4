"""The paper's tables 1 to 3, the controls, and the contrasts between them."""

from collections.abc import Sequence, Sized

from tempseg_jax.sweep.cells import CELLS, CONTRASTS, TABLES, Contrast
from tempseg_jax.sweep.report import paper, statistics, view
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.statistics import Interval
from tempseg_jax.sweep.report.view import NONE, TextTable, signed

PAIRS = (
    "over the seeds that both settings have finished; their number n is given if it is "
    "smaller than planned"
)


def results(sweep: SweepResults, table: str, split: str) -> TextTable:
    """Return a table of settings, such as the paper's tables 1 to 3, on one split.

    A setting without a run that has ended has no row.
    """
    cells = sweep.with_runs(TABLES[table].cells)
    reference = cells[0]
    rows = [_result_row(sweep, cell, reference, split) for cell in cells]
    case = paper.case(sweep.config)
    if case:
        of_paper = f"paper ({case})"
        note = "paper: pAcc / mIoU of a single run."
    else:
        of_paper = "paper's Δ mIoU"
        note = (
            f"{of_paper}: difference of the paper's single runs with the same network "
            "on PASCAL VOC (V) and Cityscapes (C), for orientation."
        )
    return TextTable(
        f"{TABLES[table].title}, {split}",
        (
            "setting",
            "seeds",
            "pAcc",
            "mIoU",
            "Δ mIoU (seeds)",
            "Δ mIoU (images)",
            "Δ pAcc (seeds)",
            of_paper,
        ),
        rows,
        f"Δ: paired difference from “{CELLS[reference].title}” {PAIRS}. {note}",
    )


def _result_row(
    sweep: SweepResults, cell: str, reference: str, split: str
) -> tuple[str, ...]:
    miou = sweep.scores(cell, split, "miou")
    pacc = sweep.scores(cell, split, "pacc")
    of_paper = _paper_value(sweep, cell, reference)
    title = CELLS[cell].title
    if not miou:
        return (title, seeds(sweep, cell, miou), *[NONE] * 5, of_paper)
    if sweep.cell(cell) == sweep.cell(reference):
        differences = [NONE] * 3
    else:
        planned = sweep.scope.seeds
        miou_over_seeds = paired_difference(sweep, cell, reference, split, "miou")
        pacc_over_seeds = paired_difference(sweep, cell, reference, split, "pacc")
        differences = [
            view.interval_over_seeds(miou_over_seeds, planned=planned),
            view.interval(bootstrap_difference(sweep, cell, reference, split)),
            view.interval_over_seeds(pacc_over_seeds, planned=planned),
        ]
    return (
        title,
        seeds(sweep, cell, miou),
        view.mean_std(pacc),
        view.mean_std(miou),
        *differences,
        of_paper,
    )


def contrasts(sweep: SweepResults, split: str) -> TextTable:
    """Return the contrasts of cells with finished runs, with corrected p-values."""
    planned = _planned(sweep)
    adjusted = _adjusted_p_values(sweep, planned, split)
    rows = []
    for contrast in planned:
        question, cell, against = contrast
        difference = paired_difference(sweep, cell, against, split, "miou")
        if difference is None:
            continue
        count = difference.count
        rows.append(
            (
                question,
                f"“{CELLS[cell].title}” − “{CELLS[against].title}”",
                str(count),
                view.interval_over_seeds(difference, planned=count),
                view.p_value(adjusted.get(contrast)),
                view.interval(bootstrap_difference(sweep, cell, against, split)),
            )
        )
    return TextTable(
        f"Paired contrasts, {split}",
        (
            "question",
            "difference",
            "seeds",
            "Δ mIoU (seeds)",
            "p (Holm)",
            "Δ mIoU (images)",
        ),
        rows,
        "seeds: number of seeds that both settings have finished. p (Holm): two-sided "
        f"paired t-test over seeds, corrected for the {len(adjusted)} contrasts of "
        "this table that have a p-value (Holm 1979). Calling a contrast significant "
        "where p is below 0.05 keeps the family-wise error rate at or below 5 %. The "
        "confidence intervals and asterisks are not corrected.",
    )


def _planned(sweep: SweepResults) -> list[Contrast]:
    """Return the contrasts of the cells that the sweep trains, each pair once.

    Two names can stand for one cell, for example if λ is 0.
    """
    trained = {run.cell for run in sweep.runs}
    pairs: dict[tuple[str, str], Contrast] = {}
    for contrast in CONTRASTS:
        pair = sweep.cell(contrast.cell), sweep.cell(contrast.against)
        if pair[0] != pair[1] and trained.issuperset(pair):
            pairs.setdefault(pair, contrast)
    return [*pairs.values()]


def _adjusted_p_values(
    sweep: SweepResults, contrasts: Sequence[Contrast], split: str
) -> dict[Contrast, float]:
    """Return the Holm-corrected p-value of each contrast with at least two seeds."""
    p_values = {}
    for contrast in contrasts:
        a, b = (
            sweep.scores(cell, split, "miou")
            for cell in (contrast.cell, contrast.against)
        )
        p = statistics.p_value(a, b)
        if p is not None:
            p_values[contrast] = p
    adjusted = statistics.holm([*p_values.values()])
    return dict(zip(p_values, adjusted, strict=True))


def paired_difference(
    sweep: SweepResults, cell: str, reference: str, split: str, metric: str
) -> Interval | None:
    """Compare two cells over seeds, in percentage points."""
    return statistics.paired_difference(
        sweep.scores(cell, split, metric), sweep.scores(reference, split, metric)
    )


def bootstrap_difference(
    sweep: SweepResults, cell: str, reference: str, split: str
) -> Interval | None:
    """Compare the mIoU of two cells over images, in percentage points."""
    difference = statistics.bootstrap_difference(
        sweep.confusions(cell, split),
        sweep.confusions(reference, split),
        block=sweep.block,
    )
    if difference is None:
        return None
    return Interval(*(100 * x for x in difference[:3]), difference.count)


def seeds(sweep: SweepResults, cell: str, values: Sized) -> str:
    """Return how many seeds have a value, such as `5` or `3 of 5, 1 diverged`."""
    name, planned = sweep.cell(cell), sweep.scope.seeds
    diverged = sum(run.cell == name for run in sweep.diverged)
    text = str(len(values)) if len(values) == planned else f"{len(values)} of {planned}"
    return f"{text}, {diverged} diverged" if diverged else text


def _paper_value(sweep: SweepResults, cell: str, reference: str) -> str:
    """Return the paper's pAcc / mIoU, or its differences for another dataset."""
    case = paper.case(sweep.config)
    if case:
        printed = paper.RESULTS[case].get(cell)
        return f"{printed.pacc:.2f} / {printed.miou:.2f}" if printed else NONE
    differences = []
    for name in paper.cases_of_network(sweep.config):
        printed = paper.RESULTS[name]
        if cell in printed and reference in printed and cell != reference:
            difference = printed[cell].miou - printed[reference].miou
            differences.append(f"{name[-1]} {signed(difference)}")
    return ", ".join(differences) or NONE
