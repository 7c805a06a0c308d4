"""The tables of a sweep: rows, pairing, the paper's numbers."""

import json
import re
import shutil

import numpy as np
import pytest

from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import cells, store
from tempseg_jax.sweep.report import build, cost, diagnostics, tables
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.report.paper import COSTS, RESULTS
from tempseg_jax.sweep.store import Run
from tests.support import load_config
from tests.sweep.report.fake_sweep import row, write_sweep


def test_a_row_has_mean_and_standard_deviation_over_seeds(full):
    shown = row(tables.results(full, "3", "val"), "T_G = 0.5")
    scores = list(full.scores("tg0.5", "val", "miou").values())
    assert len(scores) == 3
    assert shown["seeds"] == "3"
    assert shown["mIoU"] == f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"


def test_both_intervals_are_shown_and_only_that_over_seeds_has_an_asterisk(full):
    shown = row(tables.results(full, "3", "val"), "T_G = 0.5")
    for name in ("Δ mIoU (seeds)", "Δ mIoU (images)"):
        match = re.fullmatch(r"([+−].+) \[([+−].+), ([+−].+)\]( \*)?", shown[name])
        difference, low, high = (
            float(text.replace("−", "-")) for text in match.groups()[:3]
        )
        assert 0 < low <= difference <= high
        assert bool(match[4]) == (name == "Δ mIoU (seeds)")


def test_a_difference_over_fewer_seeds_than_planned_shows_their_number(tmp_path):
    finished = [Run("baseline", n) for n in (0, 1, 3)]
    finished += [Run("adversarial", n) for n in (0, 1, 2)]
    sweep = write_sweep(tmp_path, seeds=4, runs=finished)
    shown = row(tables.results(sweep, "3", "val"), "Adversarial (T = 1)")
    assert shown["seeds"] == "3 of 4"
    for name in ("Δ mIoU (seeds)", "Δ pAcc (seeds)"):
        assert shown[name].endswith(", n = 2")
    gap = diagnostics.train_val_gap(sweep, ("baseline", "adversarial"))
    shown = row(gap, "Adversarial (T = 1)")
    assert shown["seeds"] == "3 of 4" and shown["Δ gap (seeds)"].endswith(", n = 2")
    table = diagnostics.per_class(sweep, ("baseline", "adversarial"), "val")
    assert table.header[1:] == (
        "Baseline (α = 0), n = 3",
        "Δ Adversarial (T = 1), n = 2",
    )


def test_blocks_of_neighbors_widen_only_the_interval_over_images(full, tmp_path):
    # Make neighbors equal: three consecutive images share one confusion matrix.
    shutil.copytree(full.folder, tmp_path / "sweep")
    for run in (Run(x, n) for x in ("baseline", "tg0.5") for n in range(3)):
        path = run.folder(tmp_path / "sweep") / "val.npz"
        measurement = store.load_measurement(path)
        order = np.argsort(measurement.ids)
        equal = measurement.confusion.copy()
        equal[order] = np.repeat(equal[order][::3], 3, axis=0)
        store.save_measurement(path, measurement._replace(confusion=equal))
    rows = [
        row(
            tables.results(SweepResults(tmp_path / "sweep", block=n), "3", "val"),
            "T_G = 0.5",
        )
        for n in (1, 3)
    ]
    changed = {name for name in rows[0] if rows[0][name] != rows[1][name]}
    assert changed == {"Δ mIoU (images)"}
    single, blocks = (
        [
            float(x)
            for x in re.findall(r"[+-][\d.]+", y["Δ mIoU (images)"].replace("−", "-"))
        ]
        for y in rows
    )
    assert single[0] == blocks[0]
    assert blocks[2] - blocks[1] > 1.2 * (single[2] - single[1])


def test_the_first_setting_is_not_compared_with_itself(full):
    shown = row(tables.results(full, "3", "val"), "Baseline (α = 0)")
    assert shown["Δ mIoU (seeds)"] == shown["Δ mIoU (images)"] == "–"


def test_one_seed_gives_a_difference_without_an_interval_over_seeds(tmp_path):
    sweep = write_sweep(tmp_path, seeds=1)
    shown = row(tables.results(sweep, "3", "val"), "T_G = 0.5")
    assert "[" not in shown["Δ mIoU (seeds)"] and "[" in shown["Δ mIoU (images)"]
    assert "±" not in shown["mIoU"]


def test_images_are_paired_by_id_in_any_order_of_the_file(full, tmp_path):
    shutil.copytree(full.folder, tmp_path / "sweep")
    path = Run("tg0.5", 0).folder(tmp_path / "sweep") / "val.npz"
    measurement = store.load_measurement(path)
    reversed_ = measurement._replace(
        ids=measurement.ids[::-1],
        confusion=measurement.confusion[::-1],
        nats=measurement.nats[::-1],
    )
    store.save_measurement(path, reversed_)
    shuffled = SweepResults(tmp_path / "sweep")
    assert tables.results(shuffled, "3", "val") == tables.results(full, "3", "val")


def test_neighboring_frames_are_neighbors_without_leading_zeros(full, tmp_path):
    shutil.copytree(full.folder, tmp_path / "sweep")
    path = Run("tg0.5", 0).folder(tmp_path / "sweep") / "val.npz"
    measurement = store.load_measurement(path)
    count = len(measurement.ids)
    ids = [f"b_{i}" for i in range(count - 1)] + ["a²_100"]
    store.save_measurement(path, measurement._replace(ids=ids))
    results = SweepResults(tmp_path / "sweep")
    expected = ["a²_100"] + [f"b_{i}" for i in range(count - 1)]
    assert count > 11 and results._measurement("tg0.5", 0, "val").ids == expected


def test_runs_on_other_images_are_not_compared(full, tmp_path):
    shutil.copytree(full.folder, tmp_path / "sweep")
    path = Run("tg0.5", 1).folder(tmp_path / "sweep") / "val.npz"
    measurement = store.load_measurement(path)
    for ids in (["x", *measurement.ids[1:]], measurement.ids[:-1]):
        count = len(ids)
        store.save_measurement(
            path,
            measurement._replace(
                ids=ids,
                confusion=measurement.confusion[:count],
                nats=measurement.nats[:count],
            ),
        )
        with pytest.raises(ValueError, match=r"seed1.val.npz: .* other images .*seed0"):
            tables.results(SweepResults(tmp_path / "sweep"), "3", "val")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_file_is_named(full, tmp_path, content):
    shutil.copytree(full.folder, tmp_path / "sweep")
    path = Run("tg0.5", 1).folder(tmp_path / "sweep") / "val.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"seed1.val.npz: it is damaged .*restore it"):
        tables.results(SweepResults(tmp_path / "sweep"), "3", "val")
    (tmp_path / "sweep" / "examples.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"examples.npz: it is damaged .*restore it"):
        SweepResults(tmp_path / "sweep").examples("image")


def test_contrasts_of_one_cell_with_itself_and_repeated_ones_are_not_counted(tmp_path):
    # With the rate of D that learns, `learning_d` is `adversarial`; with λ = 0,
    # `lambda5e-4` is not the baseline.
    config = load_config("demo")
    config.optimizer.learning_rate_d = cells.CELLS["learning_d"].overrides[
        "optimizer.learning_rate_d"
    ]
    names = ("baseline", "adversarial", "tg0.5")
    runs = [Run(name, seed) for name in names for seed in range(3)]
    sweep = write_sweep(tmp_path, tables=("3", "controls"), runs=runs, config=config)
    table = tables.contrasts(sweep, "val")
    assert [x[1] for x in table.rows] == [
        "“T_G = 0.5” − “Baseline (α = 0)”",
        "“Adversarial (T = 1)” − “Baseline (α = 0)”",
        "“T_G = 0.5” − “Adversarial (T = 1)”",
    ]
    assert "corrected for the 3 contrasts of this table" in table.note


def test_a_contrast_may_be_trained_under_another_name(tmp_path):
    # `learning_d_alpha0.05` of this table is trained as `learning_d`.
    sweep = write_sweep(tmp_path, tables=("discriminator",))
    assert sweep.cell("learning_d_alpha0.05") == "learning_d"
    questions = [x[0] for x in tables.contrasts(sweep, "val").rows]
    assert "Does it learn more than sharpness?" in questions


def test_a_report_of_table_3_alone_has_its_contrasts(tmp_path):
    report = build.build(write_sweep(tmp_path, tables=("3",)))
    titles = [table.title for section in report.sections for table in section.tables]
    assert "Paired contrasts, test" in titles


def test_contrasts_of_other_tables_are_not_counted(full):
    for split in ("val", "test"):
        assert tables.contrasts(full, split).note.count(
            f"the {len(tables.contrasts(full, split).rows)} contrasts"
        )


def test_a_cell_shared_by_two_tables_is_trained_once(full):
    folders = {path.name for path in full.folder.iterdir() if path.is_dir()}
    assert "lambda0" not in folders and "baseline" in folders
    assert full.scores("lambda0", "val", "miou") == full.scores(
        "baseline", "val", "miou"
    )


def test_a_config_of_the_paper_is_shown_with_its_numbers(tmp_path):
    runs = [Run("tg0.5", 0)]
    sweep = write_sweep(tmp_path, runs=runs, config=load_config("fcn_voc"))
    table = tables.results(sweep, "3", "val")
    assert table.header[-1] == "paper (FCN-8s-V)"
    assert row(table, "T_G = 0.5")["paper (FCN-8s-V)"] == "92.90 / 69.82"
    assert "pAcc / mIoU" in table.note


def test_another_dataset_is_shown_with_the_papers_differences(tmp_path):
    runs = [Run("tg0.5", 0)]
    sweep = write_sweep(tmp_path, runs=runs, config=load_config("resnet50_camvid"))
    table = tables.results(sweep, "3", "val")
    assert row(table, "T_G = 0.5")["paper's Δ mIoU"] == "V +0.57, C +0.40"
    assert "PASCAL VOC (V) and Cityscapes (C)" in table.note


def test_a_partial_copy_of_voc_is_not_a_case_of_the_paper(tmp_path):
    config = load_config("resnet50_voc")
    with config.data.options.unlocked():
        config.data.options.allow_missing = True
    sweep = write_sweep(tmp_path, runs=[], config=config)
    assert tables.results(sweep, "3", "val").header[-1] == "paper's Δ mIoU"


def test_the_papers_numbers_agree_with_its_claims():
    for case, printed in RESULTS.items():
        assert max(printed, key=lambda cell: printed[cell].miou) == "tg0.5", case
    ratios = [round(cost.ratio, 2) for cost in COSTS.values()]
    assert ratios == [1.58, 1.15, 1.35, 1.29]


def test_table_4_is_computed_from_the_logged_images_per_second(full):
    shown = row(cost.cost_table(full), "fcn8s, measured")
    assert shown["epoch, supervised"] == "25.6 s"  # 512 images, 20 per second
    assert shown["ratio"] == "2.00"
    assert (shown["parameters"], shown["parameters of D"]) == ("23.6 M", "2.79 M")


def test_a_calibration_that_is_not_finite_is_left_out_of_the_mean(tmp_path):
    sweep = write_sweep(tmp_path, seeds=2)
    path = Run("tg0.5", 0).folder(tmp_path) / "final.json"
    final = json.loads(path.read_text())
    final["splits"]["val"]["nll"][0] = None
    write_json(path, final)
    table = diagnostics.calibration(SweepResults(tmp_path), ("baseline", "tg0.5"))
    other = sweep.finished("tg0.5")[1]["splits"]["val"]["nll"][0]
    assert row(table, "T_G = 0.5")["NLL at T = 1 (nats)"] == f"{other:.3f}, n = 1"
    assert "±" in row(table, "Baseline (α = 0)")["NLL at T = 1 (nats)"]
