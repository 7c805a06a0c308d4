import errno
import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from tempseg_jax.data.labels import color_labels
from tempseg_jax.evaluation import plots
from tempseg_jax.evaluation.evaluator import PredictedImage
from tempseg_jax.types import IGNORE_LABEL
from tests.support import ROOT

PALETTE = np.array([(10, 20, 30), (200, 100, 0)], np.uint8)


def read_rgb(path):
    return cv2.imread(str(path))[..., ::-1]


def test_classes_have_the_palettes_colors_and_ignored_pixels_another():
    labels = np.array([[0, 1, IGNORE_LABEL]], np.uint8)
    colors = color_labels(labels, PALETTE)
    np.testing.assert_array_equal(colors[0, :2], PALETTE)
    assert tuple(colors[0, 2]) not in {tuple(color) for color in PALETTE}


def test_a_panel_is_image_label_and_prediction_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    label, prediction = rng.integers(0, 2, (2, 5, 7)).astype(np.uint8)
    example = PredictedImage("train/a_1", image, label, prediction)
    plots.save_panel(example, tmp_path / "predictions", palette=PALETTE)
    path = tmp_path / "predictions" / "train" / "a_1.png"
    panel = read_rgb(path)
    assert panel.shape[0] == 5
    np.testing.assert_array_equal(panel[:, :7], image)
    np.testing.assert_array_equal(panel[:, -7:], PALETTE[prediction])
    middle = (panel.shape[1] - 7) // 2
    np.testing.assert_array_equal(panel[:, middle : middle + 7], PALETTE[label])


def test_panels_of_similar_ids_are_different_files(tmp_path):
    label = np.zeros((1, 2), np.uint8)
    for number, id_ in enumerate(("a/b", "a_b", "a")):
        image = np.full((1, 2, 3), number, np.uint8)
        example = PredictedImage(id_, image, label, label)
        plots.save_panel(example, tmp_path, palette=PALETTE)
    values = [read_rgb(tmp_path / f"{x}.png")[0, 0, 0] for x in ("a/b", "a_b", "a")]
    assert values == [0, 1, 2]


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    plots.save_curves([{"step": 1, "train/loss_seg": 1.0}], path)
    before = path.read_bytes()

    def fill_the_disk(figure, file, **options):
        Path(file).write_bytes(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        plots.save_curves([{"step": 1, "train/loss_seg": 2.0}], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_curves_have_a_panel_only_for_names_that_are_logged(tmp_path):
    lines = [
        {"step": 1, "train/loss_seg": 2.0},
        {"step": 2, "train/loss_seg": 1.0},
        {"step": 2, "val/miou": None, "val/pacc": 0.5},
    ]
    plots.save_curves(lines, tmp_path / "narrow.png")
    adversarial = [line | {"train/loss_d": 0.3, "train/d_real": 0.4} for line in lines]
    plots.save_curves(adversarial, tmp_path / "wide.png")
    narrow, wide = (read_rgb(tmp_path / f"{x}.png") for x in ("narrow", "wide"))
    assert np.ptp(narrow) > 0
    assert wide.shape[1] == 2 * narrow.shape[1]  # with two panels of D


def test_a_curve_of_one_value_is_a_point(tmp_path):
    paths = [tmp_path / "curve.png", tmp_path / "empty.png"]
    for value, path in zip((2.0, math.nan), paths, strict=True):
        plots.save_curves([{"step": 1, "train/loss_seg": value}], path)
    colors = [(read_rgb(path) == (31, 119, 180)).all(-1).sum() for path in paths]
    assert colors[0] > colors[1] + 5  # pixels in the first color of a figure


def panels(monkeypatch, runs, path):
    """Draw a comparison; return the axes of its panels."""
    figures = []
    monkeypatch.setattr(
        plots,
        "Figure",
        lambda **options: figures.append(Figure(**options)) or figures[0],
    )
    plots.save_comparison(runs, path)
    return figures[0].axes


def drawn(monkeypatch, runs, path):
    """Draw a comparison; return each panel's title and its curves' labels."""
    return {
        axes.get_title(): [line.get_label() for line in axes.lines]
        for axes in panels(monkeypatch, runs, path)
    }


def test_a_comparison_has_a_panel_only_for_names_that_are_logged(tmp_path, monkeypatch):
    loss, score = {"step": 1, "train/loss_seg": 2.0}, {"step": 1, "val/miou": 0.5}
    both = drawn(monkeypatch, {"a": [loss, score], "b": [loss]}, tmp_path / "x.png")
    assert both == {"Segmentation loss (nats)": ["a", "b"], "Validation mIoU": ["a"]}
    one = drawn(
        monkeypatch, {"a": [loss, {"step": 1, "val/miou": None}]}, tmp_path / "y.png"
    )
    assert one == {"Segmentation loss (nats)": ["a"]}
    with pytest.raises(ValueError, match=r"a: no line of metrics\.jsonl"):
        plots.save_comparison({"a": [{"step": 1}]}, tmp_path / "z.png")


def test_a_run_has_the_same_color_in_both_panels_and_each_run_is_in_the_legend(
    tmp_path, monkeypatch
):
    loss, score = {"step": 1, "train/loss_seg": 2.0}, {"step": 1, "val/miou": 0.5}
    runs = {"a": [loss, score], "b": [loss], "_c": [loss, score]}
    shown = panels(monkeypatch, runs, tmp_path / "x.png")
    left, right = (
        {line.get_label().strip(): line.get_color() for line in axes.lines}
        for axes in shown
    )
    assert len(set(left.values())) == 3
    assert right == {"a": left["a"], "_c": left["_c"]}
    legend = shown[0].get_legend()
    assert [x.get_text().strip() for x in legend.get_texts()] == ["a", "b", "_c"]


def compare(*folders, out):
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *map(str, folders)]
    return subprocess.run(
        [*command, f"--out={out}"], capture_output=True, text=True, timeout=120
    )


def test_runs_are_named_by_the_shortest_distinct_end_of_their_paths():
    script = runpy.run_path(str(ROOT / "scripts" / "compare.py"), run_name="script")
    folders = [
        Path(x) for x in ("/r/a/run", "/r/b/run", "/r/other", "/s/b/run", "/run")
    ]
    names = list(script["_named"](folders))
    assert names == ["a/run", "r/b/run", "other", "s/b/run", "/run"]


def test_mistakes_on_the_command_line_are_refused_in_one_line(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    line = {"step": 1, "train/loss_seg": 2.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    out = tmp_path / "x.png"
    process = compare(folder, out=tmp_path / "curves")
    assert process.returncode == 1
    assert process.stderr.strip().endswith("curves: give a name that ends in .png")
    process = compare(folder, folder / ".." / "run", out=out)
    assert process.returncode == 1 and not out.exists()
    assert process.stderr.strip().endswith("given twice; give each workdir once")
