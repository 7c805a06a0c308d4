"""The first part of the report: title, facts, missing runs, and reading guide."""

from pathlib import Path

from tempseg_jax.sweep import cells
from tempseg_jax.sweep.cells import CELLS
from tempseg_jax.sweep.report.collect import SweepResults

MISSING = "Missing runs"
HOW_TO_READ = "How to read this report"
READING = (
    (
        "Protocol",
        "Every run trains for the same number of steps, and its last checkpoint is "
        "evaluated. No checkpoint is selected on the validation split. The test split, "
        "if there is one, is evaluated once per run, after training.",
    ),
    (
        "Scores",
        "Percent, over all labeled pixels of a split at native resolution, as mean ± "
        "sample standard deviation over seeds.",
    ),
    (
        "Δ (seeds)",
        "The paired difference: runs of two settings with the same seed are compared, "
        "and these differences are averaged. The 95 % confidence interval is Student's "
        "t over seeds. It estimates whether the setting has an effect with other "
        "seeds. An asterisk marks an interval that excludes zero.",
    ),
    (
        "Δ (images)",
        "The same difference with a 95 % bootstrap interval over images, for fixed "
        "trained models. It estimates whether these models would differ on other "
        "images, and ignores the variation over seeds: it can exclude zero for two "
        "runs of one setting that differ only in their seed. It is therefore no "
        "evidence for an effect of the setting, and is never marked.",
    ),
    (
        "Frames of a video",
        "The bootstrap treats images as independent, unless the report was made with "
        "--block=N: then it resamples blocks of N neighboring images. For neighboring "
        "frames of a video the interval is too narrow without it.",
    ),
    (
        "Multiple comparisons",
        "Each interval is for one comparison: if no setting had an effect, one "
        "interval in twenty would exclude zero by chance. Only the column p (Holm) is "
        "corrected for the number of comparisons.",
    ),
)
"""The reading guide: terms, each with its explanation."""


def title(sweep: SweepResults) -> str:
    """Return the heading of the report: network, and dataset or name of its folder."""
    data = sweep.config.data
    folder = Path(data.manual_dir or "").name  # a published sweep does not tell it
    dataset = folder if data.name == "folder" and folder else sweep.dataset
    return f"Temperature sweep: {_networks(sweep)} on {dataset}"


def _networks(sweep: SweepResults) -> str:
    """Return the names of the networks that the runs train."""
    own = sweep.config.model.name
    names = (CELLS[x.cell].overrides.get("model.name", own) for x in sweep.runs)
    return ", ".join(dict.fromkeys(names))


def state(sweep: SweepResults) -> str:
    """Say how many runs are missing, and which were trained with other values."""
    return " ".join([_missing(sweep), *_changed(sweep)])


def _changed(sweep: SweepResults) -> list[str]:
    """Return a sentence for each cell that an earlier version trained otherwise."""
    return [
        f"The runs of “{CELLS[cell].title}” were trained with other values than this "
        f"version has ({'; '.join(changes)})."
        for cell, changes in sweep.changed().items()
    ]


def _missing(sweep: SweepResults) -> str:
    count, diverged = len(sweep.runs) - len(sweep.finals), len(sweep.diverged)
    if not count:
        return "Every planned run has finished."
    of_them = f" ({diverged} diverged)" if diverged else ""
    verb = "is" if count == 1 else "are"
    return (
        f"{count} of {len(sweep.runs)} runs {verb} missing{of_them}. The tables and "
        "figures show the settings with finished runs; the section "
        f"“{MISSING}” lists the runs that are missing."
    )


def _learning_rates(sweep: SweepResults) -> str:
    """Return the rates of both networks, and those of settings with their own."""
    rate = sweep.config.optimizer.learning_rate_g
    trained = {run.cell for run in sweep.runs}
    own = [
        f"{_rate_of(sweep, cell):g} (G of “{CELLS[cell].title}”)"
        for cell in sweep.scope.rates
        if sweep.cell(cell) in trained
    ]
    rate_d = sweep.config.optimizer.learning_rate_d
    return ", ".join([f"{rate:g} (G)", *own, f"{rate_d:g} (D)"])


def _rate_of(sweep: SweepResults, cell: str) -> float:
    """Return the segmenter's learning rate of a cell, with all of its factors."""
    own = cells.configure(sweep.config, cell, seed=0, rates=sweep.scope.rates)
    return own.optimizer.learning_rate_g


def facts(sweep: SweepResults) -> list[tuple[str, str]]:
    """Return names and values: the training set-up, progress and provenance."""
    config, scope = sweep.config, sweep.scope
    images = {
        name: values["images"]
        for final in sweep.finals.values()
        for name, values in final["splits"].items()
    }
    evaluated = ", ".join(f"{count} {name}" for name, count in images.items())
    entries = [
        ("network", f"{_networks(sweep)}, width {config.model.width:g}"),
        # Only the file's name: the report may be published.
        ("pretrained weights", Path(config.model.pretrained).name or "none"),
        (
            "each run",
            f"{sweep.steps} steps, batch {config.data.batch_size}, crop "
            f"{config.data.crop_size}², {config.precision}",
        ),
        ("learning rates", _learning_rates(sweep)),
        ("adversarial weight α", f"{config.objective.alpha:g}"),
        ("weight decay λ", f"{config.optimizer.weight_decay:g}"),
        ("images evaluated", evaluated or "none"),
        ("seeds per setting", str(scope.seeds)),
        ("finished runs", f"{len(sweep.finals)} of {len(sweep.runs)}"),
        *sweep.provenance().items(),
    ]
    if sweep.block > 1:
        text = f"blocks of {sweep.block} neighboring images, in the order of their ids"
        entries.append(("bootstrap over images", text))
    return entries
