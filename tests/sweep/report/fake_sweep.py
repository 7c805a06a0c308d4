"""Write the folder of a sweep with random results, without training anything."""

import json

import numpy as np

from tempseg_jax.data.sources import scenes
from tempseg_jax.evaluation.evaluator import PredictedImage
from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import cells, store
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.report import statistics
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.workdir import saved_config
from tests.support import load_config

IMAGES, SIZE = 12, 24
NAMES, PALETTE = scenes.Scenes().classes()
CLASSES = len(NAMES)
GAIN = {"baseline": 0.0, "adversarial": 0.0, "tg0.5": 0.05, "tg2": -0.05}


def write_sweep(
    folder,
    *,
    tables=("3",),
    seeds=3,
    runs=None,
    config=None,
    class_names=NAMES,
    rates=cells.NO_RATES,
):
    """Write a sweep with all its runs, or only those in `runs`, and read it."""
    config = config or load_config("demo")
    saved_config.claim(folder, config, allow_change=False)
    scope = {
        "tables": tables,
        "seeds": seeds,
        "test_split": "test",
        "train_images": None,
        "rates": dict(rates),
    }
    about = {
        "scope": scope,
        "steps": 40,
        "dataset": "scenes",
        "class_names": class_names,
        "palette": PALETTE.tolist(),
    }
    write_json(folder / "sweep.json", about)
    for run in SweepResults(folder).runs if runs is None else runs:
        write_run(folder, run)
    return SweepResults(folder)


def write_run(folder, run):
    rng = np.random.default_rng([run.seed, len(run.cell), *map(ord, run.cell)])
    run_folder = run.folder(folder)
    adversarial = cells.CELLS[run.cell].overrides.get("objective.alpha") != 0
    final = {
        "step": 40,
        "seconds": 100.0,
        "temperatures": [1.0, 0.5],
        "images_per_epoch": 512,
        "parameters": {"segmenter": 23_600_000},
        "splits": {},
        "provenance": {"commit": "0123456789ab", "date": f"2020-01-0{run.seed + 1}"},
    }
    for split in ("train", "val", "test"):
        measurement = make_measurement(rng, right=0.7 + GAIN.get(run.cell, 0))
        store.save_measurement(run_folder / f"{split}.npz", measurement)
        total = measurement.confusion.sum(0)
        miou = statistics.miou(measurement.confusion, np.ones((1, IMAGES)))
        final["splits"][split] = {
            "images": IMAGES,
            "pacc": float(np.trace(total) / total.sum()),
            "miou": float(miou[0]),
            "nll": measurement.nll.tolist(),
            "ece": measurement.ece.tolist(),
        }
    if adversarial:
        change = {"distance": 1e-3, "relative": 1e-5, "largest": 3e-7}
        final["discriminator_change"] = change
        final["parameters"]["discriminator"] = 2_790_000
    write_examples(folder, run_folder, rng)
    write_metrics(run_folder, rng, adversarial=adversarial)
    write_json(run_folder / "final.json", final)


def make_measurement(rng, *, right):
    confusion = rng.multinomial(100, [1 / CLASSES] * CLASSES, (IMAGES, CLASSES))
    confusion = (1 - right) * confusion + right * 100 * np.eye(CLASSES)
    bins = np.zeros((2, 15, 3))
    bins[:, :, 0] = confusion.astype(int).sum() / 15
    bins[:, :, 1] = bins[:, :, 0] * np.linspace(0.1, 0.9, 15)
    bins[:, :, 2] = bins[:, :, 0] * np.linspace(0, 1, 15)
    return Measurement(
        [f"image{i}" for i in range(IMAGES)],
        confusion.astype(np.int64),
        rng.uniform(100, 200, (IMAGES, 2)),
        bins,
    )


def write_examples(folder, run_folder, rng):
    same_for_all_runs = np.random.default_rng(0)
    pictures = [
        PredictedImage(
            f"image{i}",
            same_for_all_runs.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
            same_for_all_runs.integers(0, CLASSES, (SIZE, SIZE), np.uint8),
            rng.integers(0, CLASSES, (SIZE, SIZE), np.uint8),
        )
        for i in range(IMAGES)
    ]
    store.save_pictures(
        run_folder / "predictions.npz", pictures, fields=("prediction",)
    )
    if not (folder / "examples.npz").exists():
        store.save_pictures(
            folder / "examples.npz", pictures, fields=("image", "label")
        )


def write_metrics(run_folder, rng, *, adversarial):
    lines = []
    for step in range(10, 41, 10):
        line = {"step": step, "train/images_per_s": 10.0 if adversarial else 20.0}
        line["train/loss_seg"] = 40.0 / step
        if adversarial:
            noise = float(rng.normal(0, 0.01))
            line |= {"train/d_real": 0.5 + noise, "train/d_fake": 0.4 + noise}
            line |= {"train/loss_d": 0.25 + noise}
        score = float(0.5 + step / 100 + rng.normal(0, 0.02))
        lines += [line, {"step": step, "val/miou": score}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run_folder / "metrics.jsonl").write_text(text)


def row(table, title):
    """Return {column: text} of the row whose first cell is `title`."""
    (cells_of_row,) = (x for x in table.rows if x[0] == title)
    return dict(zip(table.header, cells_of_row, strict=True))
