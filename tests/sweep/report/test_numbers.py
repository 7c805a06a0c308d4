"""The report's numbers, for a sweep with numbers chosen by hand."""

import json

import numpy as np
import pytest

from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import store
from tempseg_jax.sweep.cells import CONTRASTS
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.report import (
    build,
    diagnostics,
    drawing,
    examples,
    figures,
    tables,
    view,
)
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.store import Run
from tempseg_jax.types import IGNORE_LABEL
from tempseg_jax.workdir import saved_config
from tests.support import load_config
from tests.sweep.report.fake_sweep import row

SEEDS = 3
CELLS = ("baseline", "adversarial", "tg0.5", "tg2")
MIOU = {  # on val, in percent, by seed
    "baseline": (40, 41, 42),
    "adversarial": (41, 42, 43.3),  # +1, +1, +1.3
    "tg0.5": (39, 39.4, 41),  # -1, -1.6, -1
    "tg2": (40, 41.5, 41),  # 0, +0.5, -1
}
GAP = {"baseline": (5, 6, 7), "adversarial": (4, 5, 5.7), "tg0.5": (5, 6, 9)}
# Pixels of class 0 predicted as class 0, of 100; all 100 of class 1 are correct.
CORRECT = {"baseline": (50, 60, 70), "adversarial": (60, 70, 80), "tg0.5": (40, 50, 60)}
D_REAL, D_FAKE = (0.9, 0.4, -0.1), (0.6, 0.2, -0.4)  # at the last step, by seed
STEPS = range(10, 41, 10)


def write(folder, cell, seed):
    run_folder = Run(cell, seed).folder(folder)
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
            if cell == "tg2":
                line["train/semi_share"] = 0.2 + 0.1 * seed
    correct = CORRECT.get(cell, (50, 50, 50))[seed]
    confusion = np.array([[[correct, 100 - correct], [0, 100]]] * 2)
    bins = np.zeros((2, 15, 3))
    bins[0, -1] = 400, 100, 380  # confidence 0.95, accuracy 0.25
    store.save_measurement(
        run_folder / "val.npz",
        Measurement(["a", "b"], confusion, np.zeros((2, 2)), bins),
    )
    (run_folder / "metrics.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in lines)
    )
    write_json(run_folder / "final.json", final)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
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
    return SweepResults(folder)


def test_a_row_has_the_mean_and_the_difference_from_the_first_setting(sweep):
    shown = row(tables.results(sweep, "3", "val"), "Adversarial (T = 1)")
    # Student's t with 2 degrees of freedom: half is 4.302653 x 0.1732 / sqrt(3).
    assert shown["mIoU"] == "42.10 ± 1.15"
    assert shown["Δ mIoU (seeds)"] == "+1.10 [+0.67, +1.53] *"
    assert shown["Δ pAcc (seeds)"] == "+0.00 [+0.00, +0.00]"
    assert shown["pAcc"] == "80.00 ± 0.00"


def test_the_summary_names_the_settings_that_are_better_or_worse(sweep):
    # T_G = 0.5: mean -1.2, s 0.346, so [-2.06, -0.34].
    assert build._summary(sweep, "3", "val") == (
        "On val, the confidence interval over seeds excludes zero for 2 of 3 "
        "differences in mIoU: Adversarial (T = 1) (better), T_G = 0.5 (worse). If no "
        "setting had an effect, 0.15 would be expected by chance."
    )


def test_the_summary_says_that_there_is_no_interval_yet(sweep, tmp_path):
    saved_config.claim(tmp_path, sweep.config, allow_change=False)
    about = json.loads((sweep.folder / "sweep.json").read_text())
    write_json(tmp_path / "sweep.json", about)
    write(tmp_path, "baseline", 0)
    assert build._summary(SweepResults(tmp_path), "3", "val") == (
        "On val there is no confidence interval over seeds yet: it needs two seeds "
        "finished by both a setting and the first setting, “Baseline (α = 0)”."
    )


def question(cell, against):
    """Return the first column of a contrast's row."""
    return next(x.question for x in CONTRASTS if x[1:] == (cell, against))


def test_a_contrast_is_the_first_setting_minus_the_second(sweep):
    table = tables.contrasts(sweep, "val")
    shown = row(table, question("tg0.5", "adversarial"))
    # -2, -2.6, -2.3: mean -2.3, s 0.3, half 4.302653 x 0.3 / sqrt(3).
    assert shown["difference"] == "“T_G = 0.5” − “Adversarial (T = 1)”"
    assert shown["Δ mIoU (seeds)"] == "−2.30 [−3.05, −1.55] *"
    assert shown["Δ mIoU (images)"].startswith("−")
    assert shown["seeds"] == "3"
    # t = -13.28: two-sided p = 1 - |t| / sqrt(t² + 2) = 0.00562. The other contrasts
    # of this sweep's settings have t = 11 and -6: p = 0.00816 and 0.02667.
    # Holm: 3 x 0.00562.
    assert shown["p (Holm)"] == "0.017"
    other = row(table, question("adversarial", "baseline"))
    assert other["p (Holm)"] == "0.017"  # never below that of a smaller p-value
    assert row(table, question("tg0.5", "baseline"))["p (Holm)"] == "0.027"
    # Of a cell in none of the sweep's tables.
    assert question("adv_only", "adversarial") not in {x[0] for x in table.rows}
    assert "corrected for the 3 contrasts" in table.note


def test_the_gap_is_train_minus_val(sweep):
    table = diagnostics.train_val_gap(sweep, CELLS[:3])
    shown = row(table, "Adversarial (T = 1)")
    # Gaps 4, 5, 5.7; minus those of the baseline: -1, -1, -1.3.
    assert shown["mIoU train"] == "47.00 ± 2.00"
    assert shown["mIoU val"] == "42.10 ± 1.15"
    assert shown["gap"] == "4.90 ± 0.85"
    assert shown["Δ gap (seeds)"] == "−1.10 [−1.53, −0.67] *"
    assert shown["seeds"] == "3"
    assert row(table, "Baseline (α = 0)")["Δ gap (seeds)"] == "–"
    assert row(table, "T_G = 0.5")["Δ gap (seeds)"].startswith("+0.67")


def test_calibration_is_shown_at_one_and_at_the_temperature_of_training(sweep):
    shown = row(diagnostics.calibration(sweep, CELLS), "T_G = 0.5")
    assert list(shown.values()) == [
        "T_G = 0.5",
        "3",
        "2.000 ± 1.000",
        "3.00 ± 1.00",
        "0.5",
        "11.000 ± 1.000",
        "21.00 ± 1.00",
    ]


def test_outputs_of_d_at_the_end_and_its_weight_change(sweep):
    table = diagnostics.discriminator(sweep, CELLS[:2])
    assert [x[0] for x in table.rows] == ["Adversarial (T = 1)"]
    shown = row(table, "Adversarial (T = 1)")
    assert shown == {
        "setting": "Adversarial (T = 1)",
        "seeds": "3",
        "D(X)": "0.400 ± 0.500",
        "D(p)": "0.133 ± 0.503",
        "D(X) − D(p)": "0.267 ± 0.058",  # 0.3, 0.2, 0.3
        "L_D": "0.400 ± 0.100",
        "weight change, relative": "2 %",
        "largest weight change": "3.0e-04",
    }


def test_the_margin_of_d_is_computed_per_seed(sweep):
    curves = diagnostics.margins(sweep, "adversarial")
    assert curves[1] == [(10, 8.8), (20, 8.8), (30, 8.8), (40, pytest.approx(0.2))]
    assert diagnostics.margins(sweep, "baseline") == {}


def test_classes_are_compared_with_the_first_setting(sweep):
    # Ground: 50, 60, 70 of 100. The rest is predicted as sky: 100 of 150, 140, 130.
    table = diagnostics.per_class(sweep, CELLS[:3], "val")
    ground, sky = table.rows
    assert ground[1] == "60.00 ± 10.00"
    assert ground[2] == "+10.00 [+10.00, +10.00] *"
    assert ground[3] == "−10.00 [−10.00, −10.00] *"
    assert sky[1] == f"{np.mean([100 / 1.5, 100 / 1.4, 100 / 1.3]):.2f} ± 5.13"
    assert table.header[1:3] == (
        "Baseline (α = 0), n = 3",
        "Δ Adversarial (T = 1), n = 3",
    )


@pytest.fixture
def axes(monkeypatch):
    """A list to which the axes of every figure are added."""
    created, new_axes = [], drawing.new_axes

    def new_axes_recorded(*, height):
        created.append(new_axes(height=height))
        return created[-1]

    monkeypatch.setattr(drawing, "new_axes", new_axes_recorded)
    return created


def points(axes, label):
    """Return x and y of the line whose label contains `label`."""
    (line,) = (x for x in axes.lines if label in str(x.get_label()))
    return [np.asarray(x, float).tolist() for x in line.get_data()]


def test_an_overconfident_network_is_below_the_diagonal(sweep, axes):
    (figure,) = figures.reliability(sweep, CELLS[:1])
    assert points(axes[0], "Baseline") == [[0.95], [0.25]]
    assert axes[0].get_xlabel().startswith("confidence")
    assert "Below the diagonal a network is overconfident" in figure.caption


def test_differences_are_drawn_on_the_side_of_their_sign(sweep, axes):
    figures.forest(sweep, "3", "val")
    middles = {
        round(float(line.get_xdata()[0]), 6)
        for line in axes[0].lines
        if line.get_label() == "over seeds"
    }
    assert middles == {1.1, -1.2, -0.166667}
    figures.classes(sweep, CELLS[:2], "val")
    markers = [x for x in axes[1].lines if "Adversarial" in x.get_label()]
    assert markers[0].get_xdata()[0] == pytest.approx(10)  # ground
    assert markers[1].get_xdata()[0] > 0  # sky: fewer wrong pixels


def test_each_curve_of_d_has_its_own_caption(sweep, axes):
    drawn = figures.discriminator(sweep, CELLS[1:2])
    labels = [x.caption.partition(":")[0] for x in drawn]
    assert labels == ["mean D(X) − D(p)", "mean D(X)", "mean D(p)", "L_D"]
    last = [points(x, "n = 3")[1][-1] for x in axes]
    assert last == pytest.approx([0.8 / 3, 0.4, 0.4 / 3, 0.4])


@pytest.mark.parametrize("adversary, drawn", [("lsgan", True), ("dcgan", False)])
def test_the_l_d_of_an_undecided_d_is_drawn_for_least_squares_only(
    sweep, axes, monkeypatch, adversary, drawn
):
    config = sweep.config.copy_and_resolve_references()
    config.objective.adversary = adversary
    monkeypatch.setattr(sweep, "config", config)
    figures.discriminator(sweep, CELLS[1:2])
    heights = [list(x.get_ydata()) for x in axes[-1].lines if len(x.get_ydata()) == 2]
    assert ([0.25, 0.25] in heights) is drawn


def test_what_d_selects_is_drawn_for_the_cells_that_have_l_semi(sweep, axes):
    drawn = figures.discriminator(sweep, CELLS[2:])
    assert drawn[-1].caption.startswith("share of the pixels in L_semi:")
    assert len(axes[-1].lines) == 1
    assert points(axes[-1], "n = 3")[1][-1] == pytest.approx(0.3)


def test_a_band_is_mean_and_sample_standard_deviation_at_the_common_steps():
    seeds = [[(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 5.0), (3, 9.0)], [(1, 3.0), (2, 7.0)]]
    steps, mean, std = drawing.mean_and_std(seeds)
    np.testing.assert_array_equal(steps, [1, 2])
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_array_equal(std, [1, 2])
    np.testing.assert_array_equal(drawing.mean_and_std(seeds[:1])[2], [0, 0])


def test_differing_pixels_are_colored_by_which_setting_is_correct():
    image = np.full((1, 6, 3), 90, np.uint8)
    label = np.array([[0, 0, 0, 0, 0, IGNORE_LABEL]], np.uint8)
    first = np.array([[0, 1, 0, 1, 1, 0]], np.uint8)
    second = np.array([[0, 1, 1, 0, 2, 1]], np.uint8)
    gray = (30, 30, 30)
    expected = [
        gray,  # both correct
        gray,  # both wrong, with the same class
        examples.FIRST_CORRECT,
        examples.SECOND_CORRECT,
        examples.BOTH_WRONG,
        gray,  # ignored
    ]
    np.testing.assert_array_equal(
        examples._draw_correct(image, label, first, second), [expected]
    )
    assert (
        len({examples.FIRST_CORRECT, examples.SECOND_CORRECT, examples.BOTH_WRONG}) == 3
    )


@pytest.mark.parametrize(
    "value, shown",
    [(0.574, "+0.57"), (-0.574, "−0.57"), (-0.001, "−0.00"), (-0.0, "+0.00")],
)
def test_a_number_keeps_its_sign_and_zero_has_no_minus(value, shown):
    assert view.signed(value) == shown


def test_a_bar_in_a_name_does_not_end_its_cell():
    table = view.TextTable("classes", ("class", "IoU"), [("car|van", "1.00")])
    lines = view.to_markdown(table).splitlines()
    assert r"| car\|van | 1.00 |" in lines


@pytest.mark.parametrize(
    "p, shown", [(0.0312, "0.031"), (0.0004, "< 0.001"), (1.0, "1.000")]
)
def test_a_p_value_has_three_decimals(p, shown):
    assert view.p_value(p) == shown
