"""`scripts/predict.py`: labels, overlays, and error messages."""

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

import tempseg_jax
from tempseg_jax.inference import image_files, overlays, predict_files
from tests.support import ROOT

PALETTE = np.array([(10, 20, 30), (200, 100, 0), (0, 0, 250)], np.uint8)
NAMES = ("ground", "stone", "brick")


def script(name, monkeypatch, *arguments):
    """Run a script's `main` as a command line would; return its exit code."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.setattr(tempseg_jax.cli.command, "prepare", lambda: None)
    return module.main()


def make_images(folder):
    rng = np.random.default_rng(0)
    for name in ("a.png", "deep/b.jpg", "deep/b.png"):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)


def test_every_image_gets_its_labels_and_its_overlay(
    saved_run, tmp_path, monkeypatch, capsys
):
    make_images(tmp_path / "in")
    out = tmp_path / "out"
    where = f"--workdir={saved_run}"
    assert not script("predict", monkeypatch, where, tmp_path / "in", f"--out={out}")
    assert "3 images in" in capsys.readouterr().out
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert names == [
        *("labels/a.png", "labels/deep/b.jpg.png", "labels/deep/b.png.png"),
        *("overlays/a.jpg", "overlays/deep/b.jpg.jpg", "overlays/deep/b.png.jpg"),
    ]
    predictor = tempseg_jax.load(saved_run)
    with Image.open(out / "labels" / "a.png") as indexed:
        assert indexed.mode == "P"
        np.testing.assert_array_equal(indexed, predictor(tmp_path / "in" / "a.png"))
        colors = np.array(indexed.convert("RGB"))
    np.testing.assert_array_equal(colors, predictor.palette[np.array(indexed)])


def test_a_broken_image_is_reported_and_the_others_are_predicted(
    saved_run, tmp_path, monkeypatch, capsys
):
    make_images(tmp_path / "in")
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "b_broken.png").write_bytes(whole[:-500])
    with pytest.raises(SystemExit, match="error: 1 of 4 images.*b_broken.png"):
        script(
            "predict",
            monkeypatch,
            f"--workdir={saved_run}",
            tmp_path / "in",
            f"--out={tmp_path / 'out'}",
        )
    assert "b_broken.png" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "labels").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window=8"], "error: window: 8"),
        (["--checkpoint=9"], "error: .*no checkpoint '9'"),
        (["--scales=wide"], "error: scales"),
    ],
)
def test_an_error_is_one_line(saved_run, tmp_path, monkeypatch, arguments, message):
    make_images(tmp_path)
    with pytest.raises(SystemExit, match=message) as stop:
        script(
            "predict",
            monkeypatch,
            f"--workdir={saved_run}",
            tmp_path,
            f"--out={tmp_path / 'out'}",
            *arguments,
        )
    assert "\n" not in str(stop.value)


def test_images_that_would_overwrite_each_others_result_are_refused(tmp_path):
    make_images(tmp_path / "x")
    make_images(tmp_path / "y")
    files, _ = image_files.find([tmp_path / "x", tmp_path / "y"])
    with pytest.raises(ValueError, match="with its own --out"):
        predict_files._result_names([name for _, name in files])


def test_an_overlay_is_the_mean_of_image_and_colors():
    image = np.full((1, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, 2]], np.uint8)
    overlay = overlays.overlay(image, labels, palette=PALETTE)
    np.testing.assert_array_equal(overlay[0], (100 + PALETTE.astype(int)) // 2)


def test_an_overlay_does_not_paint_a_black_class():
    image = np.full((1, 2, 3), 100, np.uint8)
    palette = np.array([(0, 0, 0), (200, 0, 0)], np.uint8)
    overlay = overlays.overlay(image, np.array([[0, 1]], np.uint8), palette=palette)
    assert overlay[0].tolist() == [[100, 100, 100], [150, 50, 50]]


def test_areas_are_of_the_classes_present_largest_first():
    labels = np.array([[2, 2, 2, 0]], np.uint8)
    assert overlays.areas(labels, NAMES) == [(2, "brick", 0.75), (0, "ground", 0.25)]
    assert overlays.percent(0.75) == "75.0 %" and overlays.percent(1e-6) == "< 0.1 %"


@pytest.mark.parametrize("size", [(1, 1), (30, 300)])
def test_the_legend_is_next_to_images_of_every_size(size):
    labels = np.arange(np.prod(size), dtype=np.uint8).reshape(size) % 3
    image = np.zeros((*size, 3), np.uint8)
    legend = overlays.with_legend(image, labels, palette=PALETTE, class_names=NAMES)
    assert legend.width > size[1] and legend.height >= size[0]
    left = np.array(legend)[: size[0], : size[1]]
    overlay = overlays.overlay(image, labels, palette=PALETTE)
    np.testing.assert_array_equal(left, overlay)
    swatches = {
        tuple(c) for c in np.array(legend)[:, size[1] :].reshape(-1, 3).tolist()
    }
    assert {tuple(PALETTE[k].tolist()) for k in np.unique(labels)} <= swatches
