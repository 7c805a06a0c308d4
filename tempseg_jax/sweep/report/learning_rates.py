"""The learning rate with which each setting of a pilot scored best on val."""

import statistics
from typing import NamedTuple

from tempseg_jax.sweep.cells.rates import RATES
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.view import NONE, TextTable, mean_std


class Setting(NamedTuple):
    """A setting that the tables `grid` and `rates` train with several rates."""

    title: str
    prefix: str  # its cells are `<prefix>_rate<factor>`
    cells: tuple[str, ...]  # cells of other tables to train with its best rate


SETTINGS = (
    Setting("T = 1, without D", "t1", ("baseline",)),
    Setting("T = 0.5, without D", "t0.5", ("seg_only",)),
    Setting("T = 2, without D", "t2", ()),
    Setting(
        "Adversarial (T = 1)",
        "adversarial",
        ("adversarial", "frozen_d", "learning_d", "adv_only", "void_shown"),
    ),
    Setting("T_G = 0.5", "tg0.5", ("tg0.5", "rate_matched")),
)


def table(sweep: SweepResults) -> TextTable:
    """Return the mIoU on val of each setting at each learning rate."""
    rows = []
    for setting in SETTINGS:
        scores = [sweep.scores(_cell(setting, x), "val", "miou") for x in RATES]
        if any(scores):
            shown = [mean_std(x, planned=sweep.scope.seeds) for x in scores]
            best = best_factor(sweep, setting)
            rows.append(
                (setting.title, *shown, NONE if best is None else f"× {best:g}")
            )
    return TextTable(
        "mIoU on val by learning rate",
        ("setting", *(f"× {factor:g}" for factor in RATES), "best"),
        rows,
        f"Factors on the config's learning rate. {NONE}: no run has finished. A factor "
        "with a run that is missing or has diverged is not called the best, and one "
        "factor alone is not either.",
    )


def advice(sweep: SweepResults) -> list[str]:
    """Return the option `--rates` with the best factors, and what limits the choice.

    It is empty if no setting has a best factor.
    """
    best = {
        setting: factor
        for setting in SETTINGS
        if (factor := best_factor(sweep, setting)) is not None
    }
    entries = [
        f"{cell}:{factor:g}"
        for setting, factor in best.items()
        for cell in setting.cells
        if factor != 1
    ]
    if not best:
        return []
    not_compared = [
        setting.title
        for setting in SETTINGS
        if setting not in best and _mean_by_factor(sweep, setting)
    ]
    text = [
        "To compare settings each at its best learning rate, train them with other "
        f"seeds and the option --rates={','.join(entries)}"
        if entries
        else "Every setting that was compared scored best with the config's learning "
        "rate.",
        "With few seeds, neighboring factors can hardly be told apart.",
    ]
    if not_compared:
        text.append(f"With one learning rate only: {'; '.join(not_compared)}.")
    for setting, factor in best.items():
        left_out = [x for x in RATES if x not in _mean_by_factor(sweep, setting)]
        if left_out:
            text.append(
                f"{setting.title}: not compared: "
                f"{', '.join(f'× {x:g}' for x in left_out)} (a run is missing or has "
                "diverged)."
            )
        if factor in (RATES[0], RATES[-1]):
            end = "smaller" if factor == RATES[0] else "larger"
            text.append(
                f"{setting.title}: the best factor, {factor:g}, is at the end of the "
                f"range, and a {end} one may be better."
            )
    return text


def best_factor(sweep: SweepResults, setting: Setting) -> float | None:
    """Return the factor with the highest mean mIoU on val.

    It is None unless at least two factors have all of their runs.
    """
    means = _mean_by_factor(sweep, setting)
    return max(means, key=means.__getitem__) if len(means) > 1 else None


def _mean_by_factor(sweep: SweepResults, setting: Setting) -> dict[float, float]:
    """Return the mean mIoU on val of the factors with a score of every seed.

    Means over other seeds cannot be compared, and where one seed has diverged, others
    will.
    """
    scores = {x: sweep.scores(_cell(setting, x), "val", "miou") for x in RATES}
    return {
        factor: statistics.fmean(by_seed.values())
        for factor, by_seed in scores.items()
        if len(by_seed) == sweep.scope.seeds
    }


def _cell(setting: Setting, factor: float) -> str:
    return f"{setting.prefix}_rate{factor:g}"
