"""The paper's tables, and what the controls answer."""

from collections.abc import Sized

import numpy as np

from tempseg_jax.sweep.cells import CELLS, CONTRASTS, TABLES, Contrast
from tempseg_jax.sweep.report import paper, statistics
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.report.statistics import Interval
from tempseg_jax.sweep.report.view import (
    NONE,
    View,
    interval,
    over_seeds,
    probability,
    signed,
    spread,
)

PAIRS = "over the seeds that both have (n, where they are fewer than planned)"


def results(evidence: Evidence, table: str, split: str) -> View:
    """One of the paper's tables 1 to 3, or the controls, on one split."""
    cells = TABLES[table].cells
    reference = cells[0]
    rows = [_result(evidence, cell, reference, split) for cell in cells]
    case = paper.case(evidence.config)
    printed = f"paper ({case})" if case else "paper's Δ mIoU"
    return View(
        f"{TABLES[table].title}, {split}",
        (
            "setting",
            "seeds",
            "pAcc",
            "mIoU",
            "Δ mIoU (seeds)",
            "Δ mIoU (images)",
            "Δ pAcc (seeds)",
            printed,
        ),
        rows,
        f"Δ: paired difference from “{CELLS[reference].title}”, {PAIRS}.",
    )


def _result(
    evidence: Evidence, cell: str, reference: str, split: str
) -> tuple[str, ...]:
    miou = evidence.scores(cell, split, "miou")
    pacc = evidence.scores(cell, split, "pacc")
    beside = _beside(evidence, cell, reference)
    title = CELLS[cell].title
    if not miou:
        return (title, seeds(evidence, cell, miou), *[NONE] * 5, beside)
    if evidence.cell(cell) == evidence.cell(reference):
        differences = [NONE] * 3
    else:
        planned = evidence.scope.seeds
        of_miou = paired(evidence, cell, reference, split, "miou")
        of_pacc = paired(evidence, cell, reference, split, "pacc")
        differences = [
            over_seeds(of_miou, planned=planned),
            interval(bootstrapped(evidence, cell, reference, split)),
            over_seeds(of_pacc, planned=planned),
        ]
    return (
        title,
        seeds(evidence, cell, miou),
        spread(pacc),
        spread(miou),
        *differences,
        beside,
    )


def contrasts(evidence: Evidence, split: str) -> View:
    """What the controls answer: pairs of cells that differ in one thing."""
    adjusted = _adjusted(evidence, split)
    rows = []
    for contrast in CONTRASTS:
        question, cell, against = contrast
        found = paired(evidence, cell, against, split, "miou")
        count = found.count if found else 0
        rows.append(
            (
                question,
                f"“{CELLS[cell].title}” − “{CELLS[against].title}”",
                str(count),
                over_seeds(found, planned=count),
                probability(adjusted.get(contrast)),
                interval(bootstrapped(evidence, cell, against, split)),
            )
        )
    return View(
        f"What the controls answer, {split}",
        (
            "question",
            "difference",
            "seeds",
            "Δ mIoU (seeds)",
            "p (Holm)",
            "Δ mIoU (images)",
        ),
        rows,
        "Seeds: those that both settings have. p (Holm): of the paired t-test over "
        f"seeds, adjusted for the {len(adjusted)} contrasts of this table that have "
        "one (Holm 1979): below 0.05 a difference is told from zero though so many "
        "were looked at. Intervals and asterisks are not adjusted.",
    )


def _adjusted(evidence: Evidence, split: str) -> dict[Contrast, float]:
    """Holm's p of every contrast that has two seeds."""
    known = {}
    for contrast in CONTRASTS:
        a, b = (
            evidence.scores(cell, split, "miou")
            for cell in (contrast.cell, contrast.against)
        )
        p = statistics.p_value(a, b)
        if p is not None:
            known[contrast] = p
    return dict(zip(known, statistics.holm([*known.values()]), strict=True))


def cost(evidence: Evidence) -> View:
    """Table 4: parameters and seconds an epoch, with and without D."""
    header = (
        "network",
        "parameters",
        "of D",
        "epoch, supervised",
        "epoch, adversarial",
        "ratio",
    )
    without, with_d = (_epoch_seconds(evidence, x) for x in ("baseline", "adversarial"))
    sizes = [f["parameters"] for f in evidence.finished("adversarial").values()]
    sizes += [f["parameters"] for f in evidence.finished("baseline").values()]
    rows = []
    if sizes:
        known = without is not None and with_d is not None
        d = sizes[0].get("discriminator")
        rows.append(
            (
                f"{evidence.config.model.name}, here",
                f"{sizes[0]['segmenter'] / 1e6:.1f} M",
                NONE if d is None else f"{d / 1e6:.2f} M",
                NONE if without is None else f"{without:.1f} s",
                NONE if with_d is None else f"{with_d:.1f} s",
                f"{with_d / without:.2f}" if known else NONE,
            )
        )
    for case, printed in paper.COSTS.items():
        rows.append(
            (
                f"{case}, paper",
                f"{printed.parameters} M",
                f"{printed.parameters_d} M",
                f"{60 * printed.minutes:.0f} s",
                f"{60 * printed.minutes_adversarial:.0f} s",
                f"{printed.ratio:.2f}",
            )
        )
    batch, crop = evidence.config.data.batch_size, evidence.config.data.crop_size
    images = [f["images_per_epoch"] for f in evidence.finals.values()][:1]
    return View(
        "Table 4: the cost of the discriminator",
        header,
        rows,
        f"Here: {'; '.join(f'{n} images an epoch' for n in images) or 'nothing run'}, "
        f"batch {batch}, crop {crop}², {evidence.config.precision}; the median of the "
        "logged rates, without evaluation. Paper: minutes on an RTX 2070 Super, times "
        "60; batch 16, crop 416², float16.",
    )


def _epoch_seconds(evidence: Evidence, cell: str) -> float | None:
    rates = [
        rate
        for points in evidence.curves(cell, "train/images_per_s").values()
        for _, rate in points[1:] or points  # the first has the compilation in it
    ]
    finals = list(evidence.finished(cell).values())
    return finals[0]["images_per_epoch"] / float(np.median(rates)) if rates else None


def paired(
    evidence: Evidence, cell: str, reference: str, split: str, metric: str
) -> Interval | None:
    """Compare two cells over seeds, in percentage points."""
    return statistics.paired(
        evidence.scores(cell, split, metric), evidence.scores(reference, split, metric)
    )


def bootstrapped(
    evidence: Evidence, cell: str, reference: str, split: str
) -> Interval | None:
    """Compare the mIoU of two cells over images, in percentage points."""
    found = statistics.bootstrap(
        evidence.confusions(cell, split),
        evidence.confusions(reference, split),
        metric="miou",
        block=evidence.block,
    )
    return found and Interval(*(100 * x for x in found[:3]), found.count)


def seeds(evidence: Evidence, cell: str, values: Sized) -> str:
    """Return how many seeds have a value: `5`, or `3 of 5, 1 diverged`."""
    name, planned = evidence.cell(cell), evidence.scope.seeds
    diverged = sum(run.cell == name for run in evidence.diverged)
    text = str(len(values)) if len(values) == planned else f"{len(values)} of {planned}"
    return f"{text}, {diverged} diverged" if diverged else text


def _beside(evidence: Evidence, cell: str, reference: str) -> str:
    case = paper.case(evidence.config)
    if case:
        printed = paper.RESULTS[case].get(cell)
        return f"{printed.pacc:.2f} / {printed.miou:.2f}" if printed else NONE
    differences = []
    for name in paper.cases_for_orientation(evidence.config):
        printed = paper.RESULTS[name]
        if cell in printed and reference in printed and cell != reference:
            difference = printed[cell].miou - printed[reference].miou
            differences.append(f"{name[-1]} {signed(difference)}")
    return ", ".join(differences) or NONE
