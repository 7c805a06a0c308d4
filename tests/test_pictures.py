import cv2
import numpy as np

from tempseg_jax import pictures
from tempseg_jax.evaluate import Example
from tempseg_jax.types import IGNORE_LABEL

PALETTE = np.array([(10, 20, 30), (200, 100, 0)], np.uint8)


def read_rgb(path):
    return cv2.imread(str(path))[..., ::-1]


def test_classes_are_painted_in_their_colours_and_void_in_none_of_them():
    labels = np.array([[0, 1, IGNORE_LABEL]], np.uint8)
    colours = pictures.colour_labels(labels, PALETTE)
    np.testing.assert_array_equal(colours[0, :2], PALETTE)
    assert tuple(colours[0, 2]) not in {tuple(colour) for colour in PALETTE}


def test_a_panel_is_image_truth_and_prediction_side_by_side(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    label, prediction = rng.integers(0, 2, (2, 5, 7)).astype(np.uint8)
    example = Example("train/a_1", image, label, prediction)
    pictures.save_panel(example, tmp_path / "predictions", palette=PALETTE)
    (path,) = (tmp_path / "predictions").iterdir()
    assert path.name == "train_a_1.png"
    panel = read_rgb(path)
    assert panel.shape[0] == 5
    np.testing.assert_array_equal(panel[:, :7], image)
    np.testing.assert_array_equal(panel[:, -7:], PALETTE[prediction])
    middle = (panel.shape[1] - 7) // 2
    np.testing.assert_array_equal(panel[:, middle : middle + 7], PALETTE[label])


def test_curves_are_drawn_from_whatever_there_is(tmp_path):
    lines = [
        {"step": 1, "train/loss_seg": 2.0},
        {"step": 2, "train/loss_seg": 1.0},
        {"step": 2, "val/miou": None, "val/pacc": 0.5},
    ]
    pictures.save_curves(lines, tmp_path / "narrow.png")
    adversarial = [line | {"train/loss_d": 0.3, "train/d_real": 0.4} for line in lines]
    pictures.save_curves(adversarial, tmp_path / "wide.png")
    narrow, wide = (read_rgb(tmp_path / f"{x}.png") for x in ("narrow", "wide"))
    assert np.ptp(narrow) > 0
    assert wide.shape[1] == 2 * narrow.shape[1]  # D has its panels where there is a D
