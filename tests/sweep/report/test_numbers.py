"""The report's numbers, from a sweep whose every number was chosen by hand."""

import json

import numpy as np
import pytest

from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import store
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.report import (
    build,
    diagnostics,
    examples,
    figures,
    html,
    tables,
    view,
)
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.store import Run
from tempseg_jax.types import IGNORE_LABEL
from tempseg_jax.workdir import saved_config
from tests.support import load_config

SEEDS = 3
CELLS = ("baseline", "adversarial", "tg0.5", "tg2")
MIOU = {  # per cent, by seed; of val
    "baseline": (40, 41, 42),
    "adversarial": (41, 42, 43.3),  # +1, +1, +1.3
    "tg0.5": (39, 39.4, 41),  # -1, -1.6, -1
    "tg2": (40, 41.5, 41),  # 0, +0.5, -1
}
GAP = {"baseline": (5, 6, 7), "adversarial": (4, 5, 5.7), "tg0.5": (5, 6, 9)}
# Pixels of class 0 taken for class 0, of 100; all 100 of class 1 are.
RIGHT = {"baseline": (50, 60, 70), "adversarial": (60, 70, 80), "tg0.5": (40, 50, 60)}
D_REAL, D_FAKE = (0.9, 0.4, -0.1), (0.6, 0.2, -0.4)  # at the end, by seed
STEPS = range(10, 41, 10)


def write(folder, cell, seed):
    own = Run(cell, seed).folder(folder)
    miou = MIOU[cell][seed] / 100
    train = miou + GAP.get(cell, (0, 0, 0))[seed] / 100
    nll = [1.0 + seed, 10.0 + seed]
    ece = [0.02 + 0.01 * seed, 0.2 + 0.01 * seed]
    final = {
        "seconds": 60.0,
        "temperatures": [1.0, 0.5 if cell == "tg0.5" else 1.0],
        "images_per_epoch": 100,
        "parameters": {"segmenter": 10_000_000},
        "splits": {
            "val": {"images": 2, "pacc": 0.8, "miou": miou, "nll": nll, "ece": ece},
            "train": {"images": 2, "pacc": 0.9, "miou": train},
        },
    }
    lines = [{"step": s, "train/loss_seg": s + seed} for s in STEPS]
    if cell != "baseline":
        change = {"relative": 0.01 * (seed + 1), "largest": 1e-4 * (seed + 1)}
        final["discriminator_change"] = change
        for line in lines:
            line["train/d_real"] = D_REAL[seed] if line["step"] == 40 else 9.0
            line["train/d_fake"] = D_FAKE[seed]
            line["train/loss_d"] = 0.3 + 0.1 * seed
    right = RIGHT.get(cell, (50, 50, 50))[seed]
    confusion = np.array([[[right, 100 - right], [0, 100]]] * 2)
    bins = np.zeros((2, 15, 3))
    bins[0, -1] = 400, 100, 380  # sure, and right one time of four
    store.save_measurement(
        own / "val.npz", Measurement(["a", "b"], confusion, np.zeros((2, 2)), bins)
    )
    (own / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    write_json(own / "final.json", final)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    saved_config.claim(folder, load_config("demo"), allow_change=False)
    about = {
        "scope": {
            "tables": ["3"],
            "seeds": SEEDS,
            "test_split": "",
            "train_images": 2,
        },
        "steps": 40,
        "dataset": "scenes",
        "class_names": ["ground", "sky"],
        "palette": [[0, 0, 0], [255, 255, 255]],
    }
    write_json(folder / "sweep.json", about)
    for cell in CELLS:
        for seed in range(SEEDS):
            write(folder, cell, seed)
    return Evidence(folder)


def row(found, name):
    (shown,) = (x for x in found.rows if x[0] == name)
    return dict(zip(found.header, shown, strict=True))


def test_a_setting_has_its_mean_and_the_difference_from_the_first(evidence):
    found = row(tables.results(evidence, "3", "val"), "Adversarial (T = 1)")
    # 4.302653 is the t of two degrees of freedom; half is t x 0.1732 / sqrt(3).
    assert found["mIoU"] == "42.10 ± 1.15"
    assert found["Δ mIoU (seeds)"] == "+1.10 [+0.67, +1.53] *"
    assert found["Δ pAcc (seeds)"] == "+0.00 [+0.00, +0.00]"
    assert found["pAcc"] == "80.00 ± 0.00"


def test_a_verdict_says_which_settings_are_better_or_worse(evidence):
    # T_G = 0.5: mean -1.2, s 0.346, so [-2.06, -0.34].
    assert build._verdict(evidence, "3", "val") == (
        "On val, 2 of 3 differences in mIoU have an interval over seeds that excludes "
        "zero: Adversarial (T = 1) (better), T_G = 0.5 (worse). If no setting "
        "mattered, 0.15 would be expected by chance."
    )


def test_a_verdict_says_where_there_is_no_interval(evidence, tmp_path):
    saved_config.claim(tmp_path, evidence.config, allow_change=False)
    about = json.loads((evidence.folder / "sweep.json").read_text())
    write_json(tmp_path / "sweep.json", about)
    write(tmp_path, "baseline", 0)
    assert build._verdict(Evidence(tmp_path), "3", "val") == (
        "On val: no interval over seeds yet; it needs two finished seeds of a setting "
        "and of the first one."
    )


def test_a_contrast_is_the_first_setting_less_the_second(evidence):
    found = tables.contrasts(evidence, "val")
    shown = row(found, "Does T_G = 0.5 help, beside an adversary?")
    # -2, -2.6, -2.3: mean -2.3, s 0.3, half 4.302653 x 0.3 / sqrt(3).
    assert shown["difference"] == "“T_G = 0.5” − “Adversarial (T = 1)”"
    assert shown["Δ mIoU (seeds)"] == "−2.30 [−3.05, −1.55] *"
    assert shown["Δ mIoU (images)"].startswith("−")
    assert shown["seeds"] == "3"
    # t = -13.28: two-sided p = 1 - |t| / sqrt(t² + 2) = 0.00562. The other contrast
    # of these settings has t = 11: p = 0.00816. Holm: twice the smaller.
    assert shown["p (Holm)"] == "0.011"
    other = row(found, "Does an adversary help, at T = 1?")
    assert other["p (Holm)"] == "0.011"  # never below a smaller one's
    missing = row(found, "Does T_G matter in L_adv by itself?")
    assert missing["p (Holm)"] == missing["Δ mIoU (seeds)"] == "–"
    assert "the 2 contrasts" in found.note


def test_the_gap_is_train_less_val(evidence):
    found = diagnostics.gap(evidence, CELLS[:3])
    shown = row(found, "Adversarial (T = 1)")
    # Gaps 4, 5, 5.7; from those of the baseline -1, -1, -1.3.
    assert shown["mIoU train"] == "47.00 ± 2.00"
    assert shown["mIoU val"] == "42.10 ± 1.15"
    assert shown["gap"] == "4.90 ± 0.85"
    assert shown["Δ gap (seeds)"] == "−1.10 [−1.53, −0.67] *"
    assert shown["seeds"] == "3"
    assert row(found, "Baseline (α = 0)")["Δ gap (seeds)"] == "–"
    assert row(found, "T_G = 0.5")["Δ gap (seeds)"].startswith("+0.67")


def test_calibration_is_at_one_and_at_the_temperature_of_training(evidence):
    shown = row(diagnostics.calibration(evidence, CELLS), "T_G = 0.5")
    assert list(shown.values()) == [
        "T_G = 0.5",
        "3",
        "2.000 ± 1.000",
        "3.00 ± 1.00",
        "0.5",
        "11.000 ± 1.000",
        "21.00 ± 1.00",
    ]


def test_what_d_says_at_the_end_and_how_far_it_moved(evidence):
    found = diagnostics.discriminator(evidence, CELLS[:2])
    assert [x[0] for x in found.rows] == ["Adversarial (T = 1)"]
    shown = row(found, "Adversarial (T = 1)")
    assert shown == {
        "setting": "Adversarial (T = 1)",
        "seeds": "3",
        "D(X)": "0.400 ± 0.500",
        "D(p)": "0.133 ± 0.503",
        "D(X) − D(p)": "0.267 ± 0.058",  # 0.3, 0.2, 0.3
        "L_D": "0.400 ± 0.100",
        "moved, of initial norm": "2 %",
        "largest move of a weight": "3.0e-04",
    }


def test_the_margin_of_d_is_taken_seed_by_seed_where_both_are_known(evidence):
    found = diagnostics.margins(evidence, "adversarial")
    assert found[1] == [(10, 8.8), (20, 8.8), (30, 8.8), (40, pytest.approx(0.2))]
    assert diagnostics.margins(evidence, "baseline") == {}


def test_classes_are_compared_with_the_first_setting(evidence):
    # Ground: 50, 60, 70 of 100. Sky, which the rest is taken for: 100 of 150, ...
    found = diagnostics.per_class(evidence, CELLS[:3], "val")
    ground, sky = found.rows
    assert ground[1] == "60.00 ± 10.00"
    assert ground[2] == "+10.00 [+10.00, +10.00] *"
    assert ground[3] == "−10.00 [−10.00, −10.00] *"
    assert sky[1] == f"{np.mean([100 / 1.5, 100 / 1.4, 100 / 1.3]):.2f} ± 5.13"
    assert found.header[1:3] == (
        "Baseline (α = 0), n = 3",
        "Δ Adversarial (T = 1), n = 3",
    )


@pytest.fixture
def axes(monkeypatch):
    """The axes of every figure that is drawn."""
    found, make = [], figures._axes

    def remember(*, height):
        canvas, axes = make(height=height)
        found.append(axes)
        return canvas, axes

    monkeypatch.setattr(figures, "_axes", remember)
    return found


def points(axes, label):
    """Of the line with this label, or part of one: x and y."""
    (line,) = (x for x in axes.lines if label in str(x.get_label()))
    return [np.asarray(x, float).tolist() for x in line.get_data()]


def test_a_network_too_sure_of_itself_is_below_the_diagonal(evidence, axes):
    (figure,) = figures.reliability(evidence, CELLS[:1])
    assert points(axes[0], "Baseline") == [[0.95], [0.25]]
    assert axes[0].get_xlabel().startswith("confidence")
    assert "below the diagonal a network is too sure" in figure.caption


def test_a_forest_and_classes_are_drawn_on_the_side_of_their_sign(evidence, axes):
    figures.forest(evidence, "3", "val")
    middles = {
        round(float(line.get_xdata()[0]), 6)
        for line in axes[0].lines
        if line.get_label() == "over seeds"
    }
    assert middles == {1.1, -1.2, -0.166667}
    figures.classes(evidence, CELLS[:2], "val")
    markers = [x for x in axes[1].lines if "Adversarial" in x.get_label()]
    assert markers[0].get_xdata()[0] == pytest.approx(10)  # ground
    assert markers[1].get_xdata()[0] > 0  # sky: fewer pixels are taken for it


def test_what_d_says_is_drawn_under_its_name(evidence, axes):
    found = figures.discriminator(evidence, CELLS[1:2])
    titles = [x.caption.partition(":")[0] for x in found]
    assert titles == ["mean D(X) − D(p)", "mean D(X)", "mean D(p)", "L_D"]
    last = [points(x, "n = 3")[1][-1] for x in axes]
    assert last == pytest.approx([0.8 / 3, 0.4, 0.4 / 3, 0.4])


def test_a_band_is_mean_and_sample_deviation_at_the_common_steps():
    seeds = [[(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 5.0), (3, 9.0)], [(1, 3.0), (2, 7.0)]]
    steps, mean, sd = figures._band(seeds)
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(sd, [1, 2])
    np.testing.assert_array_equal(figures._band(seeds[:1])[2], [0, 0])


def test_pixels_on_which_two_settings_differ_say_who_is_right():
    image = np.full((1, 6, 3), 90, np.uint8)
    label = np.array([[0, 0, 0, 0, 0, IGNORE_LABEL]], np.uint8)
    first = np.array([[0, 1, 0, 1, 1, 0]], np.uint8)
    second = np.array([[0, 1, 1, 0, 2, 1]], np.uint8)
    gray = (30, 30, 30)
    expected = [
        gray,  # both right
        gray,  # both wrong, alike
        examples.FIRST_RIGHT,
        examples.SECOND_RIGHT,
        examples.BOTH_WRONG,
        gray,  # void
    ]
    np.testing.assert_array_equal(
        examples._who(image, label, first, second), [expected]
    )
    assert len({examples.FIRST_RIGHT, examples.SECOND_RIGHT, examples.BOTH_WRONG}) == 3


def test_the_legend_has_the_color_of_who_is_right(evidence):
    comparison = examples.Comparison("one", "other", 0, [])
    text = html._comparison(comparison, evidence)
    for name, color in (
        ("only one is right", examples.FIRST_RIGHT),
        ("only other is right", examples.SECOND_RIGHT),
        ("both wrong, differently", examples.BOTH_WRONG),
    ):
        red, green, blue = color
        assert f'background:rgb({red},{green},{blue})"></i>{name}</span>' in text


@pytest.mark.parametrize(
    "value, shown",
    [(0.574, "+0.57"), (-0.574, "−0.57"), (-0.001, "+0.00"), (0.0, "+0.00")],
)
def test_zero_has_no_minus_sign(value, shown):
    assert view.signed(value) == shown


@pytest.mark.parametrize(
    "p, shown", [(0.0312, "0.031"), (0.0004, "< 0.001"), (1.0, "1.000")]
)
def test_a_p_value_has_three_digits(p, shown):
    assert view.probability(p) == shown
