"""The paper's table 4: what training with a discriminator costs."""

import numpy as np

from tempseg_jax.sweep.report import paper
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.view import NONE, TextTable


def cost_table(sweep: SweepResults) -> TextTable:
    """Return table 4: parameters and seconds per epoch, with and without D."""
    header = (
        "network",
        "parameters",
        "parameters of D",
        "epoch, supervised",
        "epoch, adversarial",
        "ratio",
    )
    return TextTable(
        "Table 4: cost of the discriminator",
        header,
        [*_measured(sweep), *_printed()],
        _note(sweep),
    )


def _measured(sweep: SweepResults) -> list[tuple[str, ...]]:
    supervised, adversarial = (
        _epoch_seconds(sweep, cell) for cell in ("baseline", "adversarial")
    )
    sizes = [f["parameters"] for f in sweep.finished("adversarial").values()]
    sizes += [f["parameters"] for f in sweep.finished("baseline").values()]
    if not sizes:
        return []
    both = supervised is not None and adversarial is not None
    of_d = sizes[0].get("discriminator")
    return [
        (
            f"{sweep.config.model.name}, measured",
            f"{sizes[0]['segmenter'] / 1e6:.1f} M",
            NONE if of_d is None else f"{of_d / 1e6:.2f} M",
            NONE if supervised is None else f"{supervised:.1f} s",
            NONE if adversarial is None else f"{adversarial:.1f} s",
            f"{adversarial / supervised:.2f}" if both else NONE,
        )
    ]


def _printed() -> list[tuple[str, ...]]:
    return [
        (
            f"{case}, paper",
            f"{printed.parameters} M",
            f"{printed.parameters_d} M",
            f"{60 * printed.minutes:.0f} s",
            f"{60 * printed.minutes_adversarial:.0f} s",
            f"{printed.ratio:.2f}",
        )
        for case, printed in paper.COSTS.items()
    ]


def _note(sweep: SweepResults) -> str:
    batch, crop = sweep.config.data.batch_size, sweep.config.data.crop_size
    images = [final["images_per_epoch"] for final in sweep.finals.values()][:1]
    size = f"{images[0]} images per epoch" if images else "no run has finished"
    return (
        f"measured: {size}, batch {batch}, crop {crop}², {sweep.config.precision}; "
        "from the median of the logged images per second, evaluation not included. "
        "paper: RTX 2070 Super, minutes times 60; batch 16, crop 416², float16."
    )


def _epoch_seconds(sweep: SweepResults, cell: str) -> float | None:
    rates = [
        rate
        for points in sweep.curves(cell, "train/images_per_s").values()
        for _, rate in points[1:] or points  # the first fills the cache of images
    ]
    finals = list(sweep.finished(cell).values())
    return finals[0]["images_per_epoch"] / float(np.median(rates)) if rates else None
