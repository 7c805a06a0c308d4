"""Which sections, tables and figures a report has, and what it says is missing."""

import numpy as np
import pytest

from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import cells
from tempseg_jax.sweep.report import build, drawing, examples, figures, html, tables
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.store import Run
from tests.support import load_config
from tests.sweep.report.fake_sweep import row, write_run, write_sweep


def test_a_complete_sweep_has_every_table_and_no_missing_runs(full_report):
    assert full_report.missing == []
    text = build.to_markdown(full_report)
    assert "Missing" not in text
    titles = ("Table 1", "Table 2", "Table 3", "Table 4", "Controls")
    for title in (*titles, "Train–val gap", "Calibration"):
        assert f"# {title}" in text
    assert full_report.comparison.first == "Baseline (α = 0)"


def test_the_facts_have_commit_dates_and_total_time(full_report):
    facts = dict(full_report.facts)
    assert facts["commit"] == "0123456789ab"
    assert facts["finished (first; last)"] == "2020-01-01; 2020-01-03"
    assert facts["total run time"] == "1 h 15 min"  # 45 runs of 100 s


def test_the_network_is_that_of_the_runs_and_not_of_the_config(tmp_path):
    report = build.build(write_sweep(tmp_path, tables=("networks",), runs=[]))
    assert report.title == "Temperature sweep: resnet50_v15 on scenes"
    assert dict(report.facts)["network"] == "resnet50_v15, width 0.25"


def test_a_published_sweep_of_a_folder_does_not_tell_its_name(tmp_path):
    config = load_config("demo")
    config.data.name = "folder"
    sweep = write_sweep(tmp_path, config=config, runs=[])
    assert build.build(sweep).title.endswith(" on scenes")
    config.data.manual_dir = "/home/someone/streets"
    sweep = write_sweep(tmp_path / "own", config=config, runs=[])
    assert build.build(sweep).title.endswith(" on streets")


def test_the_facts_have_the_learning_rates_of_settings_with_their_own(tmp_path):
    sweep = write_sweep(tmp_path, seeds=1, rates={"tg0.5": 0.5})
    rate = sweep.config.optimizer.learning_rate_g
    assert dict(build.build(sweep).facts)["learning rates"] == (
        f"{rate:g} (G), {rate / 2:g} (G of “T_G = 0.5”), 1e-07 (D)"
    )


def test_the_facts_have_the_block_size_of_the_bootstrap(tmp_path):
    write_sweep(tmp_path, runs=[])
    facts = dict(build.build(SweepResults(tmp_path, block=3)).facts)
    assert "blocks of 3 neighboring images" in facts["bootstrap over images"]
    facts = dict(build.build(SweepResults(tmp_path)).facts)
    assert "bootstrap over images" not in facts


def test_the_examples_are_the_largest_disagreement_of_each_quarter(full, full_report):
    first, second = (full.predictions(x, 0) for x in ("baseline", "tg0.5"))
    differ = {id_: float(np.mean(first[id_] != second[id_])) for id_ in first}
    ids = sorted(differ)
    expected = {max(ids[i : i + 3], key=differ.get) for i in range(0, 12, 3)}
    shown = full_report.comparison.examples
    assert {x.id for x in shown} == expected
    assert [x.fraction for x in shown] == sorted(map(differ.get, expected))[::-1]


def test_a_partial_sweep_lists_missing_runs_and_shows_the_others(tmp_path):
    finished = [Run(cell, seed) for cell in ("baseline", "tg0.5") for seed in (0, 1)]
    write_sweep(tmp_path, runs=finished)
    stopped = Run("adversarial", 0).folder(tmp_path)
    (stopped / "checkpoints" / "20").mkdir(parents=True)
    (stopped / ".lock").touch()
    diverged = Run("tg2", 0).folder(tmp_path) / "final.json"
    write_json(diverged, {"diverged": "step 7: the loss is not finite"})
    sweep = SweepResults(tmp_path)
    report = build.build(sweep)
    assert report.missing == [
        "Baseline (α = 0): seed 2 not started",
        "Adversarial (T = 1): seed 0 stopped at step 20 of 40; seeds 1, 2 not started",
        "T_G = 0.5: seed 2 not started",
        "T_G = 2: seed 0 diverged (step 7: the loss is not finite); seeds 1, 2 not "
        "started",
    ]
    assert report.state.startswith("8 of 12 runs are missing (1 diverged).")
    table = tables.results(sweep, "3", "val")
    assert row(table, "T_G = 0.5")["seeds"] == "2 of 3"
    assert row(table, "T_G = 2")["seeds"] == "0 of 3, 1 diverged"
    assert [x[0] for x in table.rows] == ["Baseline (α = 0)", "T_G = 0.5", "T_G = 2"]
    for text in (html.to_html(report, sweep), build.to_markdown(report)):
        first, last = text.index("8 of 12 runs"), text.index("seeds 1, 2 not started")
        assert first < text.index("Every run trains") < text.index("Table 4") < last


def test_settings_and_contrasts_without_finished_runs_have_no_row(tmp_path):
    finished = [Run(cell, seed) for cell in ("baseline", "tg0.5") for seed in (0, 1)]
    write_sweep(tmp_path, tables=("3", "controls"), runs=finished)
    report = build.build(SweepResults(tmp_path))
    shown = [table for section in report.sections for table in section.tables]
    of_settings = {
        x.title: [r[0] for r in x.rows] for x in shown if "setting" in x.header
    }
    assert of_settings.pop("The discriminator at the end of training") == ["T_G = 0.5"]
    assert len(of_settings) == 6
    for titles in of_settings.values():
        assert titles == ["Baseline (α = 0)", "T_G = 0.5"]
    for table in shown:
        if "paired contrasts" in table.title:
            assert table.rows == []
        if "class" in table.header:
            assert table.header[1:] == ("Baseline (α = 0), n = 2", "Δ T_G = 0.5, n = 2")
    assert "Frozen D: seeds 0 to 2 not started" in report.missing


@pytest.mark.slow
@pytest.mark.parametrize("finished", ["all", "one", "none"])
@pytest.mark.parametrize("table", cells.TABLES)
def test_a_sweep_of_any_one_table_has_a_page(tmp_path, table, finished):
    sweep = write_sweep(tmp_path, tables=(table,), seeds=2, runs=[])
    count = len(sweep.runs)
    number = {"all": count, "one": 1, "none": 0}[finished]
    for run in sweep.runs[:number]:
        write_run(tmp_path, run)
    sweep = SweepResults(tmp_path)
    report = build.build(sweep)
    for text in (html.to_html(report, sweep), build.to_markdown(report)):
        assert f"{count - number} of {count} runs" in text or finished == "all"
    assert isinstance(report.comparison, str) == (number < 2)
    for section in report.sections:
        assert section.text or section.tables or section.figures, section.title


def test_every_setting_is_in_one_of_the_figures(full):
    names = cells.TABLES["controls"].cells
    assert len(figures.classes(full, names, "val")) == 2
    assert len(figures.classes(full, names[:6], "val")) == 1
    assert len(figures.reliability(full, names)) == 2
    panels = figures.panels(names[1:])
    assert [len(x) for x in panels] == [4, 4] and sum(panels, ()) == names[1:]


def test_missing_predictions_are_reported_by_file_name(tmp_path):
    sweep = write_sweep(tmp_path, seeds=2)
    for run in sweep.runs:
        if run.seed == 0:
            (run.folder(tmp_path) / "predictions.npz").unlink()
    assert examples.compare(sweep, ["3"]).seed == 1
    (tmp_path / "examples.npz").unlink()
    assert "examples.npz" in examples.compare(sweep, ["3"])


def test_a_section_without_tables_is_in_the_markdown_too(tmp_path):
    sweep = write_sweep(tmp_path)
    for run in sweep.runs:
        (run.folder(tmp_path) / "metrics.jsonl").unlink()
    text = build.to_markdown(build.build(SweepResults(tmp_path)))
    assert "## Learning curves\n\nNo run was evaluated" in text
    assert "No finished run has logged outputs of a discriminator" in text


def test_without_evaluations_only_the_training_loss_is_drawn(tmp_path):
    sweep = write_sweep(tmp_path)
    for run in sweep.runs:
        path = run.folder(tmp_path) / "metrics.jsonl"
        lines = [x for x in path.read_text().splitlines() if "val/miou" not in x]
        path.write_text("\n".join(lines) + "\n")
    report = build.build(SweepResults(tmp_path))
    (section,) = (x for x in report.sections if x.title == "Learning curves")
    assert "no validation curves" in section.text[0]
    (figure,) = section.figures
    assert figure.caption.startswith("L_seg") and "T_G = 2" in figure.caption


def test_a_sweep_without_finished_runs_has_a_report(tmp_path):
    sweep = write_sweep(tmp_path, runs=[])
    report = build.build(sweep)
    text = html.to_html(report, sweep)
    assert "12 of 12 runs are missing" in text and "Table 3" in text
    assert "nothing to compare" in text
    assert "no confidence interval over seeds yet" in build.to_markdown(report)


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a sweep"):
        SweepResults(tmp_path)


def test_the_first_section_shows_what_d_and_the_temperature_add(full, monkeypatch):
    drawn, new_axes = [], drawing.new_axes

    def new_axes_recorded(*, height):
        drawn.append(new_axes(height=height))
        return drawn[-1]

    monkeypatch.setattr(drawing, "new_axes", new_axes_recorded)
    figures.answers({"": full}, "test")
    rows = [text.get_text() for text in drawn[0].get_yticklabels()]
    assert len(rows) == 5 and rows[3] == "D alone"
    middles = [x.get_xdata()[0] for x in drawn[0].lines if x.get_marker() == "o"]
    expected = [
        tables.paired_difference(full, cell, against, "test", "miou").difference
        for cell, against in (
            ("tg0.5", "baseline"),
            ("seg_only", "baseline"),
            ("tg0.5", "seg_only"),
            ("adversarial", "baseline"),
            ("learning_d", "baseline"),
        )
    ]
    assert middles == expected


def test_the_answers_come_first(full, full_report):
    assert full_report.sections[0].title == "Does it help?"
    assert len(full_report.sections[0].figures) == 2  # val and test
