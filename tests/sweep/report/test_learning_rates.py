"""The learning rates that pilots choose."""

import shutil

import pytest

from tempseg_jax.io.json_files import read_json, write_json
from tempseg_jax.sweep.cells.rates import RATES
from tempseg_jax.sweep.report import build, learning_rates
from tempseg_jax.sweep.report.collect import SweepResults
from tests.sweep.report.fake_sweep import row, write_sweep

# Mean mIoU on val in percent, by factor on the learning rate.
MIOU = {
    "t1": (40, 42, 44, 43),
    "t0.5": (44, 45, 43, 40),
    "t2": (30, 31, 32, 33),
    "adversarial": (40, 43, 44, 42),
    "tg0.5": (46, 45, 44, 40),
}


@pytest.fixture(scope="module")
def pilots(tmp_path_factory):
    """A sweep of the tables `grid` and `rates` with two seeds and these scores."""
    folder = tmp_path_factory.mktemp("pilots")
    sweep = write_sweep(folder, tables=("grid", "rates"), seeds=2)
    for prefix, scores in MIOU.items():
        for factor, score in zip(RATES, scores, strict=True):
            for seed in (0, 1):
                cell = sweep.cell(f"{prefix}_rate{factor:g}")
                path = folder / cell / f"seed{seed}" / "final.json"
                final = read_json(path, remedy="")
                final["splits"]["val"]["miou"] = (score + seed - 0.5) / 100
                write_json(path, final)
    return SweepResults(folder)


def test_the_option_has_the_best_factor_of_each_setting_unless_it_is_1(pilots):
    option, _, *ends = learning_rates.advice(pilots)
    rates = (
        "baseline:2,adversarial:2,frozen_d:2,learning_d:2,adv_only:2,void_shown:2,"
        "tg0.5:0.5,rate_matched:0.5"
    )
    assert option.endswith(f"the option --rates={rates}")
    assert [x.split(":")[0] for x in ends] == ["T = 2, without D", "T_G = 0.5"]
    assert "4, is at the end of the range, and a larger one" in ends[0]
    assert "0.5, is at the end of the range, and a smaller one" in ends[1]


def test_the_table_has_every_score_and_the_report_has_the_table(pilots):
    shown = row(learning_rates.table(pilots), "T = 1, without D")
    assert shown["× 2"] == "44.00 ± 0.71" and shown["best"] == "× 2"
    text = build.to_markdown(build.build(pilots))
    assert "## Learning rates" in text and "--rates=baseline:2" in text


def test_a_factor_with_a_missing_or_diverged_run_is_not_the_best(pilots, tmp_path):
    folder = tmp_path / "pilots"
    shutil.copytree(pilots.folder, folder)
    best = folder / pilots.cell("adversarial_rate2") / "seed1" / "final.json"
    write_json(best, {"diverged": "the loss is not finite"})
    alone = [folder / pilots.cell(f"t0.5_rate{x:g}") / "seed0" for x in RATES[1:]]
    for run in alone:
        shutil.rmtree(run)
    sweep = SweepResults(folder)
    text = " ".join(learning_rates.advice(sweep))
    assert "adversarial:" not in text and "seg_only" not in text  # best: × 1, none
    assert "Adversarial (T = 1): not compared: × 2 (a run is missing or" in text
    shown = row(learning_rates.table(sweep), "Adversarial (T = 1)")
    assert shown["× 2"] == "43.50, n = 1" and shown["best"] == "× 1"
    assert "With one learning rate only: T = 0.5, without D." in text
    assert row(learning_rates.table(sweep), "T = 0.5, without D")["best"] == "–"


def test_settings_without_runs_have_no_row_and_no_factor(tmp_path):
    sweep = write_sweep(tmp_path, tables=("grid",), runs=[])
    assert learning_rates.advice(sweep) == []
    assert learning_rates.table(sweep).rows == []
    assert "--rates" not in build.to_markdown(build.build(sweep))
