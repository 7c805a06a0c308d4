import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tempseg_jax.data.sources import scenes
from tempseg_jax.evaluation.evaluator import Example
from tempseg_jax.io.json_files import write_json
from tempseg_jax.sweep import cells, store
from tempseg_jax.sweep.measurement import Measurement
from tempseg_jax.sweep.report import (
    build,
    diagnostics,
    examples,
    figures,
    html,
    statistics,
    tables,
)
from tempseg_jax.sweep.report.collect import Evidence
from tempseg_jax.sweep.report.paper import COSTS, RESULTS
from tempseg_jax.sweep.store import Run
from tempseg_jax.workdir import saved_config
from tests.support import ROOT, load_config

IMAGES, SIZE = 12, 24
NAMES, PALETTE = scenes.Scenes().classes()
CLASSES = len(NAMES)
GAIN = {"baseline": 0.0, "adversarial": 0.0, "tg0.5": 0.05, "tg2": -0.05}


def write_sweep(folder, *, tables=("3",), seeds=3, runs=None, config=None):
    """Write what a sweep leaves: all its runs, or those of `runs` alone."""
    config = config or load_config("demo")
    saved_config.claim(folder, config, allow_change=False)
    scope = {
        "tables": tables,
        "seeds": seeds,
        "test_split": "test",
        "train_images": None,
    }
    about = {
        "scope": scope,
        "steps": 40,
        "dataset": "scenes",
        "class_names": NAMES,
        "palette": PALETTE.tolist(),
    }
    write_json(folder / "sweep.json", about)
    for run in Evidence(folder).runs if runs is None else runs:
        write_run(folder, run)
    return Evidence(folder)


def write_run(folder, run):
    rng = np.random.default_rng([run.seed, len(run.cell), *map(ord, run.cell)])
    workdir_of_run = run.folder(folder)
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
        found = make_measurement(rng, right=0.7 + GAIN.get(run.cell, 0))
        store.save_measurement(workdir_of_run / f"{split}.npz", found)
        total = found.confusion.sum(0)
        miou = statistics.METRICS["miou"](found.confusion, np.ones((1, IMAGES)))
        final["splits"][split] = {
            "images": IMAGES,
            "pacc": float(np.trace(total) / total.sum()),
            "miou": float(miou[0]),
            "nll": found.nll.tolist(),
            "ece": found.ece.tolist(),
        }
    if adversarial:
        change = {"distance": 1e-3, "relative": 1e-5, "largest": 3e-7}
        final["discriminator_change"] = change
        final["parameters"]["discriminator"] = 2_790_000
    write_examples(folder, workdir_of_run, rng)
    write_metrics(workdir_of_run, rng, adversarial=adversarial)
    write_json(workdir_of_run / "final.json", final)


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


def write_examples(folder, workdir_of_run, rng):
    fixed = np.random.default_rng(0)
    pictures = [
        Example(
            f"image{i}",
            fixed.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
            fixed.integers(0, CLASSES, (SIZE, SIZE), np.uint8),
            rng.integers(0, CLASSES, (SIZE, SIZE), np.uint8),
        )
        for i in range(IMAGES)
    ]
    store.save_pictures(
        workdir_of_run / "predictions.npz", pictures, fields=("prediction",)
    )
    if not (folder / "examples.npz").exists():
        store.save_pictures(
            folder / "examples.npz", pictures, fields=("image", "label")
        )


def write_metrics(workdir_of_run, rng, *, adversarial):
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
    (workdir_of_run / "metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return write_sweep(folder, tables=("1", "2", "3", "4", "controls"))


@pytest.fixture(scope="module")
def full_report(full):
    return build.build(full)


def row(view, title):
    return dict(
        zip(view.header, next(r for r in view.rows if r[0] == title), strict=True)
    )


def test_a_row_is_mean_and_deviation_of_its_seeds(full):
    found = row(tables.results(full, "3", "val"), "T_G = 0.5")
    scores = list(full.scores("tg0.5", "val", "miou").values())
    assert len(scores) == 3
    assert found["seeds"] == "3"
    assert found["mIoU"] == f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"


def test_both_intervals_are_shown_and_that_over_seeds_is_marked(full):
    found = row(tables.results(full, "3", "val"), "T_G = 0.5")
    for name in ("Δ mIoU (seeds)", "Δ mIoU (images)"):
        shown = re.fullmatch(r"([+−].+) \[([+−].+), ([+−].+)\]( \*)?", found[name])
        difference, low, high = (
            float(text.replace("−", "-")) for text in shown.groups()[:3]
        )
        assert 0 < low <= difference <= high
        assert bool(shown[4]) == (name == "Δ mIoU (seeds)")


def test_a_difference_of_fewer_seeds_than_planned_says_of_how_many(tmp_path):
    done = [Run("baseline", n) for n in (0, 1, 3)]
    done += [Run("adversarial", n) for n in (0, 1, 2)]
    evidence = write_sweep(tmp_path, seeds=4, runs=done)
    found = row(tables.results(evidence, "3", "val"), "Adversarial (T = 1)")
    assert found["seeds"] == "3 of 4"
    for name in ("Δ mIoU (seeds)", "Δ pAcc (seeds)"):
        assert found[name].endswith(", n = 2")
    found = row(
        diagnostics.gap(evidence, ("baseline", "adversarial")), found["setting"]
    )
    assert found["seeds"] == "3 of 4" and found["Δ gap (seeds)"].endswith(", n = 2")
    view = diagnostics.per_class(evidence, ("baseline", "adversarial"), "val")
    assert view.header[1:] == (
        "Baseline (α = 0), n = 3",
        "Δ Adversarial (T = 1), n = 2",
    )


def test_blocks_of_neighbours_widen_the_interval_over_images_alone(full, tmp_path):
    # Neighbors alike: of each three images the three confusions are one.
    shutil.copytree(full.folder, tmp_path / "sweep")
    for run in (Run(x, n) for x in ("baseline", "tg0.5") for n in range(3)):
        path = run.folder(tmp_path / "sweep") / "val.npz"
        found = store.load_measurement(path)
        order = np.argsort(found.ids)
        alike = found.confusion.copy()
        alike[order] = np.repeat(alike[order][::3], 3, axis=0)
        store.save_measurement(path, found._replace(confusion=alike))
    rows = [
        row(
            tables.results(Evidence(tmp_path / "sweep", block=n), "3", "val"),
            "T_G = 0.5",
        )
        for n in (1, 3)
    ]
    changed = {name for name in rows[0] if rows[0][name] != rows[1][name]}
    assert changed == {"Δ mIoU (images)"}
    low, high = (
        [
            float(x)
            for x in re.findall(r"[+-][\d.]+", y["Δ mIoU (images)"].replace("−", "-"))
        ]
        for y in rows
    )
    assert low[0] == high[0] and high[2] - high[1] > 1.2 * (low[2] - low[1])


def test_the_script_writes_the_page_and_the_tables_and_says_what_is_missing(tmp_path):
    write_sweep(tmp_path / "sweep", runs=[])
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), "--block=3"]
    command += [str(tmp_path / "sweep"), f"--out={tmp_path / 'a' / 'page.html'}"]
    command += [f"--markdown={tmp_path / 'tables.md'}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "12 of 12 runs are missing\n" in shown.stdout
    assert "missing: T_G = 2: seeds 0, 1, 2 not started\n" in shown.stdout
    for name in ("a/page.html", "tables.md"):
        assert "runs of 3 neighbors" in (tmp_path / name).read_text()


def test_the_facts_say_that_images_were_drawn_in_blocks(tmp_path):
    write_sweep(tmp_path, runs=[])
    facts = dict(build.build(Evidence(tmp_path, block=3)).facts)
    assert "runs of 3 neighbors" in facts["images"]
    assert "images" not in dict(build.build(Evidence(tmp_path)).facts)


def test_only_the_name_of_a_file_of_weights_is_published(tmp_path):
    for given, shown in (("/home/me/vgg16.npz", "vgg16.npz"), ("keras_vgg16", None)):
        config = load_config("demo")
        config.model.pretrained = given
        evidence = write_sweep(tmp_path / (shown or given), runs=[], config=config)
        found = build.build(evidence)
        assert dict(found.facts)["pretrained"] == (shown or given)
        assert "/home/me" not in html.to_html(found, evidence)


def test_the_first_setting_is_not_compared_with_itself(full):
    found = row(tables.results(full, "3", "val"), "Baseline (α = 0)")
    assert found["Δ mIoU (seeds)"] == found["Δ mIoU (images)"] == "–"


def test_the_paper_stands_beside_its_own_cases(tmp_path):
    evidence = write_sweep(tmp_path, runs=[], config=load_config("fcn_voc"))
    view = tables.results(evidence, "3", "val")
    assert view.header[-1] == "paper (FCN-8s-V)"
    assert row(view, "T_G = 0.5")["paper (FCN-8s-V)"] == "92.90 / 69.82"


def test_other_data_have_the_papers_differences_for_orientation(tmp_path):
    evidence = write_sweep(tmp_path, runs=[], config=load_config("resnet50_camvid"))
    view = tables.results(evidence, "3", "val")
    assert row(view, "T_G = 0.5")["paper's Δ mIoU"] == "V +0.57, C +0.40"


def test_a_part_of_voc_is_not_the_papers_voc(tmp_path):
    config = load_config("resnet50_voc")
    with config.data.options.unlocked():
        config.data.options.allow_missing = True
    evidence = write_sweep(tmp_path, runs=[], config=config)
    assert tables.results(evidence, "3", "val").header[-1] == "paper's Δ mIoU"


def test_the_papers_figures_agree_with_its_claims():
    for case, printed in RESULTS.items():
        assert max(printed, key=lambda cell: printed[cell].miou) == "tg0.5", case
    ratios = [round(cost.ratio, 2) for cost in COSTS.values()]
    assert ratios == [1.58, 1.15, 1.35, 1.29]


def test_table_4_is_the_ratio_of_the_logged_rates(full):
    here = row(tables.cost(full), "fcn8s, here")
    assert here["epoch, supervised"] == "25.6 s"  # 512 images at 20 a second
    assert here["ratio"] == "2.00"
    assert (here["parameters"], here["of D"]) == ("23.6 M", "2.79 M")


def test_a_cell_shared_by_tables_is_one_run(full):
    folders = {path.name for path in full.folder.iterdir() if path.is_dir()}
    assert "lambda0" not in folders and "baseline" in folders
    assert full.scores("lambda0", "val", "miou") == full.scores(
        "baseline", "val", "miou"
    )


def test_images_are_paired_by_id_whatever_the_order_they_were_read_in(full, tmp_path):
    shutil.copytree(full.folder, tmp_path / "sweep")
    path = Run("tg0.5", 0).folder(tmp_path / "sweep") / "val.npz"
    found = store.load_measurement(path)
    backwards = found._replace(
        ids=found.ids[::-1], confusion=found.confusion[::-1], nats=found.nats[::-1]
    )
    store.save_measurement(path, backwards)
    assert tables.results(Evidence(tmp_path / "sweep"), "3", "val") == tables.results(
        full, "3", "val"
    )


def test_a_full_sweep_misses_nothing(full, full_report):
    assert full_report.missing == []
    text = build.to_markdown(full_report)
    assert "Missing" not in text
    for title in ("Table 1", "Table 2", "Table 3", "Table 4", "Controls", "Train–val"):
        assert title in text
    assert full_report.comparison.first == "Baseline (α = 0)"


def test_the_facts_say_where_when_and_for_how_long(full_report):
    facts = dict(full_report.facts)
    assert facts["commit"] == "0123456789ab"
    assert facts["finished"] == "2020-01-01; 2020-01-03"
    assert facts["time"] == "1 h 15 min"  # 45 runs of 100 s


def test_the_examples_are_those_that_differ_most_in_each_quarter(full, full_report):
    first, second = (full.predictions(x, 0) for x in ("baseline", "tg0.5"))
    differ = {id_: float(np.mean(first[id_] != second[id_])) for id_ in first}
    ids = sorted(differ)
    expected = {max(ids[i : i + 3], key=differ.get) for i in range(0, 12, 3)}
    shown = full_report.comparison.examples
    assert {x.id for x in shown} == expected
    assert [x.fraction for x in shown] == sorted(map(differ.get, expected))[::-1]


def test_a_partial_sweep_names_what_is_missing_and_shows_the_rest(tmp_path):
    done = [Run("baseline", 0), Run("baseline", 1), Run("tg0.5", 0), Run("tg0.5", 1)]
    evidence = write_sweep(tmp_path, runs=done)
    stopped = Run("adversarial", 0).folder(tmp_path)
    (stopped / "checkpoints" / "20").mkdir(parents=True)
    (stopped / ".lock").touch()
    diverged = Run("tg2", 0).folder(tmp_path) / "final.json"
    write_json(diverged, {"diverged": "step 7: the loss is not finite"})
    evidence = Evidence(tmp_path)
    found = build.build(evidence)
    assert found.missing == [
        "Baseline (α = 0): seed 2 not started",
        "Adversarial (T = 1): seed 0 stopped at 20 of 40 steps; seeds 1, 2 not started",
        "T_G = 0.5: seed 2 not started",
        "T_G = 2: seed 0 diverged (step 7: the loss is not finite); seeds 1, 2 not "
        "started",
    ]
    assert found.state.startswith("8 of 12 runs are missing (1 diverged); see the end.")
    view = tables.results(evidence, "3", "val")
    assert row(view, "T_G = 0.5")["seeds"] == "2 of 3"
    assert row(view, "T_G = 2")["seeds"] == "0 of 3, 1 diverged"
    assert row(view, "Adversarial (T = 1)")["mIoU"] == "–"
    for text in (html.to_html(found, evidence), build.to_markdown(found)):
        first, last = text.index("8 of 12 runs"), text.index("seeds 1, 2 not started")
        assert first < text.index("Every run has") < text.index("Table 4") < last


@pytest.mark.parametrize("finished", ["all", "one", "none"])
@pytest.mark.parametrize("table", cells.TABLES)
def test_a_sweep_of_any_one_table_has_a_page(tmp_path, table, finished):
    evidence = write_sweep(tmp_path, tables=(table,), seeds=2, runs=[])
    count = len(evidence.runs)
    done = {"all": count, "one": 1, "none": 0}[finished]
    for run in evidence.runs[:done]:
        write_run(tmp_path, run)
    evidence = Evidence(tmp_path)
    found = build.build(evidence)
    for text in (html.to_html(found, evidence), build.to_markdown(found)):
        assert f"{count - done} of {count} runs" in text or finished == "all"
    assert isinstance(found.comparison, str) == (done < 2)
    for section in found.sections:
        assert section.text or section.views or section.figures, section.title


def test_every_setting_is_in_a_panel_of_the_figures(full):
    names = cells.TABLES["controls"].cells
    drawn = figures.classes(full, names, "val")
    assert len(drawn) == 2
    assert len(figures.classes(full, names[:6], "val")) == 1
    assert len(figures.reliability(full, names)) == 2
    panels = figures._panels(names[1:])
    assert [len(x) for x in panels] == [4, 4] and sum(panels, ()) == names[1:]


def test_where_predictions_are_missing_the_page_says_so(tmp_path):
    evidence = write_sweep(tmp_path, seeds=2)
    for run in evidence.runs:
        if run.seed == 0:
            (run.folder(tmp_path) / "predictions.npz").unlink()
    assert examples.compare(evidence, ["3"]).seed == 1
    (tmp_path / "examples.npz").unlink()
    assert "examples.npz" in examples.compare(evidence, ["3"])


def test_a_section_of_words_alone_is_in_the_markdown_too(tmp_path):
    evidence = write_sweep(tmp_path)
    for run in evidence.runs:
        (run.folder(tmp_path) / "metrics.jsonl").unlink()
    text = build.to_markdown(build.build(Evidence(tmp_path)))
    assert "## Learning curves\n\nNo run was evaluated" in text


def test_without_evaluations_the_learning_curves_are_of_the_loss(tmp_path):
    evidence = write_sweep(tmp_path)
    for run in evidence.runs:
        path = run.folder(tmp_path) / "metrics.jsonl"
        lines = [x for x in path.read_text().splitlines() if "val/miou" not in x]
        path.write_text("\n".join(lines) + "\n")
    found = build.build(Evidence(tmp_path))
    (section,) = (x for x in found.sections if x.title == "Learning curves")
    assert "no curves of val" in section.text[0]
    (figure,) = section.figures
    assert figure.caption.startswith("L_seg") and "T_G = 2" in figure.caption


def test_an_empty_sweep_has_a_page_that_says_so(tmp_path):
    evidence = write_sweep(tmp_path, runs=[])
    found = build.build(evidence)
    text = html.to_html(found, evidence)
    assert "12 of 12 runs are missing" in text and "Table 3" in text
    assert "nothing to compare" in text
    assert "no interval over seeds yet" in build.to_markdown(found)


def test_one_seed_gives_differences_without_an_interval(tmp_path):
    evidence = write_sweep(tmp_path, seeds=1)
    found = row(tables.results(evidence, "3", "val"), "T_G = 0.5")
    assert "[" not in found["Δ mIoU (seeds)"] and "[" in found["Δ mIoU (images)"]
    assert "±" not in found["mIoU"]


def test_a_folder_that_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a sweep"):
        Evidence(tmp_path)


def test_the_page_needs_nothing_from_outside(full, full_report):
    text = html.to_html(full_report, full)
    assert not re.search(r'(src|href)="(?!data:|#missing")', text)
    assert "<script" not in text and "url(" not in text and "@import" not in text


PROBE = """<script>
const errors = [];
window.onerror = (message) => errors.push(message);
window.onload = () => {
  const images = [...document.images];
  document.body.dataset.found = JSON.stringify({
    errors: errors,
    tables: [...document.querySelectorAll("table")].filter(
      (x) => x.offsetHeight > 0).length,
    images: images.length,
    drawn: images.filter((x) => x.complete && x.naturalWidth > 20).length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  });
};
</script></head>"""


@pytest.mark.parametrize("width", [1200, 500])  # the narrowest that chromium opens
def test_a_browser_shows_tables_and_figures(full, full_report, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium: install it to see the page in a browser")
    path = tmp_path / "page.html"
    text = html.to_html(full_report, full)
    path.write_text(text.replace("</head>", PROBE, 1))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert 'data-found="' in shown.stdout, shown.stderr
    (found,) = re.findall(r'data-found="([^"]*)"', shown.stdout)
    found = json.loads(found.replace("&quot;", '"'))
    assert found["errors"] == []
    assert found["tables"] == text.count("<table") > 10
    assert found["images"] == found["drawn"] == text.count("<img") > 20
    assert found["overflow"] <= 0
