"""Sweeps of tiny runs: trained, interrupted, resumed, and shared by processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tempseg_jax import builders, train
from tempseg_jax.callbacks import Diverged
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import metrics
from tempseg_jax.io.json_files import write_json
from tempseg_jax.jitted_step import TRAIN_STEP
from tempseg_jax.sweep import cells, finish, progress, provenance
from tempseg_jax.sweep import run as sweep_run
from tempseg_jax.sweep import scope as sweep_scope
from tempseg_jax.sweep.report import diagnostics, overview, tables
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.run import parse_shard, run_sweep, runs_of_process
from tempseg_jax.sweep.scope import Scope, parse_rates, read_scope
from tempseg_jax.sweep.store import Run
from tests.support import ROOT, make_demo_config

SCOPE = Scope(tables=("4",), seeds=1, test_split="", train_images=3)

SETTINGS = {
    "steps": 4,
    "save_every_steps": 1,
    "log_every_steps": 2,
    "evaluate_every_epochs": 100.0,  # only at the end
}


@pytest.fixture(scope="module")
def config(data_dir):
    """A config whose runs have four steps and save after each."""
    config = make_demo_config(data_dir)
    config.update_from_flattened_dict(SETTINGS)
    return config.lock()


def run(config, folder, *, scope=SCOPE, shard=(1, 1), keep=False):
    return run_sweep(config, folder, scope=scope, shard=shard, keep_checkpoints=keep)


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    """A finished sweep of table 4, and how many train steps were compiled for it."""
    folder = tmp_path_factory.mktemp("swept")
    TRAIN_STEP.clear_cache()  # other tests may have compiled the same step
    assert run(config, folder)
    return folder, TRAIN_STEP._cache_size()


@pytest.fixture
def copy(swept, tmp_path):
    """A copy of a finished sweep, which the test may change."""
    return shutil.copytree(swept[0], tmp_path / "copy")


def changed(config, **values):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in values.items()}
    )
    return other


def test_an_unknown_cell_is_refused(demo_config, tmp_path):
    with pytest.raises(ValueError, match="'td2' is not a cell of these tables"):
        run(demo_config, tmp_path, scope=SCOPE._replace(only=("td2",)))
    assert not list(tmp_path.iterdir())


def test_shards_train_disjoint_runs_and_together_all_runs(
    config, tmp_path, monkeypatch
):
    trained = []

    def record(own, folder, **_):
        trained.append(Run(*Path(folder).parts[-2:]))
        raise Diverged("recorded, not trained")

    monkeypatch.setattr(train, "train", record)
    scope = SCOPE._replace(tables=("3",), seeds=2)
    assert run(config, tmp_path, scope=scope, shard=(2, 3))
    # Shard 2 of 3 starts one cell earlier with the second seed.
    second = [("adversarial", "seed0"), ("baseline", "seed1"), ("tg2", "seed1")]
    assert trained == second
    for i in (1, 3):
        assert run(config, tmp_path, scope=scope, shard=(i, 3))
    all_runs = {(x.cell, f"seed{x.seed}") for x in scope.runs(config)}
    assert len(trained) == len(all_runs) == 8 and set(trained) == all_runs


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("only", [[], ["baseline", "tg0.5"]])
def test_every_shard_has_runs_of_every_cell(config, only, count):
    scope = SCOPE._replace(tables=("3",), seeds=12, only=tuple(only))
    shards = [
        runs_of_process(config, scope, shard=(i, count)) for i in range(1, count + 1)
    ]
    for shard in shards:
        for cell in only or cells.TABLES["3"].cells:
            assert sum(x.cell == cell for x in shard) == 12 // count
    assert sorted(sum(shards, [])) == sorted(scope.runs(config))


def test_a_cell_that_is_trained_as_another_may_be_named(config):
    scope = SCOPE._replace(tables=("1",), only=("lambda0",))
    assert not config.optimizer.weight_decay
    runs = runs_of_process(config, scope, shard=(1, 1))
    assert runs == [Run("baseline", 0)]


def test_seeds_and_rates_of_a_sweep_are_its_own(config, tmp_path, monkeypatch):
    trained = {}

    def record(own, folder, **_):
        trained[Run(*Path(folder).parts[-2:])] = own.optimizer.learning_rate_g
        raise Diverged("recorded, not trained")

    monkeypatch.setattr(train, "train", record)
    scope = SCOPE._replace(
        tables=("4",), seeds=2, first_seed=7, rates={"baseline": 2.0}
    )
    assert run(config, tmp_path, scope=scope)
    base = config.optimizer.learning_rate_g
    assert trained == {
        (cell, f"seed{seed}"): pytest.approx(factor * base)
        for cell, factor in (("baseline", 2), ("adversarial", 1))
        for seed in (7, 8)
    }
    assert read_scope(tmp_path)[0] == scope
    for field, value, message in (
        ("first_seed", 0, "started with --first_seed=7, not with --first_seed=0; give"),
        ("rates", {}, "started with --rates=baseline:2, not without --rates; give"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config, tmp_path, scope=scope._replace(**{field: value}))


def test_a_rate_is_written_cell_and_factor():
    assert parse_rates([]) == {}
    assert parse_rates(["tg0.5:2", "baseline:0.5"]) == {"tg0.5": 2.0, "baseline": 0.5}
    for text in ("tg0.5", "tg0.5:", "tg0.5:x", "tg0.5:0", "tg0.5:-1", "tg0.5:inf"):
        with pytest.raises(ValueError, match="is not cell:factor"):
            parse_rates([text])
    with pytest.raises(ValueError, match="'tg0.5' is named twice"):
        parse_rates(["tg0.5:2", "tg0.5:3"])


def test_a_shard_is_written_i_of_n():
    assert parse_shard("1/1") == (1, 1) and parse_shard("3/12") == (3, 12)
    for text in ("0/3", "4/3", "-1/3", "1", "1/", "a/b", "1/2/3"):
        with pytest.raises(ValueError, match="is not i/n with 1 <= i <= n"):
            parse_shard(text)


def sweep_script(*flags):
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_status_needs_only_the_workdir(swept):
    process = sweep_script("--status", f"--workdir={swept[0]}")
    assert process.returncode == 0, process.stderr
    assert "2 runs: 2 done, 0 to do" in process.stdout


def test_an_invalid_shard_is_refused_before_the_workdir_is_created(tmp_path):
    config = ROOT / "configs" / "demo.py"
    folder = tmp_path / "sweep"
    process = sweep_script("--shard=4/3", f"--config={config}", f"--workdir={folder}")
    assert process.returncode == 1 and not folder.exists()
    assert process.stderr.splitlines()[-1].startswith("error: --shard: '4/3'")


def test_a_sweep_compiles_two_steps_with_and_without_an_adversary(swept):
    assert swept[1] == 2


def test_a_sweep_writes_the_files_of_the_report_and_keeps_no_checkpoints(swept):
    evidence = SweepResults(swept[0])
    assert evidence.missing() == []
    for cell in cells.TABLES["4"].cells:
        assert not (Run(cell, 0).folder(swept[0]) / "checkpoints").exists()
        (measurement,) = evidence.measurements(cell, "val").values()
        logged = evidence.curves(cell, "val/miou")[0][-1]
        measured = metrics.scores(measurement.confusion.sum(0))["miou"]
        assert logged == (4, measured)
        (final,) = evidence.finished(cell).values()
        assert final["splits"]["train"]["images"] == 3
        assert "commit" in final["provenance"] or not (ROOT / ".git").exists()
        assert set(provenance.LIBRARIES) <= final["provenance"].keys()
        assert ("discriminator_change" in final) == (cell != "baseline")
        assert evidence.predictions(cell, 0).keys() == evidence.examples("label").keys()
    assert read_scope(swept[0])[0] == SCOPE


def test_a_finished_run_is_not_trained_again(config, copy, monkeypatch):
    monkeypatch.setattr(train, "train", None)
    assert run(config, copy)


def test_a_later_start_may_add_tables_and_seeds(config, copy, monkeypatch):
    trained = []

    def interrupted(config, folder, **_):
        trained.append(folder)
        return True

    monkeypatch.setattr(train, "train", interrupted)
    more = SCOPE._replace(tables=("1",), seeds=2)
    assert not run(config, copy, scope=more)
    assert trained == [str(Run("lambda1e-4", 0).folder(copy))]
    scope, _ = read_scope(copy)
    assert scope.tables == ("4", "1") and scope.seeds == 2


def test_cells_that_were_named_are_the_sweep_until_others_are(config, copy):
    path = copy / "sweep.json"
    saved = json.loads(path.read_text())
    saved["scope"]["only"] = ["baseline"]
    path.write_text(json.dumps(saved))
    assert [x.cell for x in SweepResults(copy).runs] == ["baseline"]
    assert run(config, copy, scope=SCOPE._replace(only=("baseline",)))
    assert read_scope(copy)[0].only == ("baseline",)
    assert run(config, copy, scope=SCOPE._replace(only=("adversarial",)))
    assert read_scope(copy)[0].only == ("baseline", "adversarial")
    assert run(config, copy)  # all cells of the table
    assert read_scope(copy)[0].only == ()


def test_runs_of_a_cell_that_had_other_values_get_no_further_seeds(config, copy):
    path = Run("adversarial", 0).folder(copy) / "config.json"
    saved = json.loads(path.read_text())
    saved["objective"]["temperature_d"] = 2.0
    path.write_text(json.dumps(saved))
    text = "objective.temperature_d: 2.0 there, 1.0 now"
    with pytest.raises(ValueError, match=f"other values of the cell .*{text}"):
        run(config, copy, scope=SCOPE._replace(seeds=2))
    assert not (copy / "adversarial" / "seed1").exists()
    assert "Adversarial (T = 1)” were trained with other values" in overview.state(
        SweepResults(copy)
    )
    assert run(config, copy)  # without further seeds there is nothing to refuse


def test_other_settings_are_refused_in_the_folder_of_a_sweep(config, copy):
    before = (copy / "sweep.json").read_text()
    with pytest.raises(ValueError, match="train_images=3, not with --train_images=4"):
        run(config, copy, scope=SCOPE._replace(train_images=4))
    with pytest.raises(ValueError, match="another .*choose another --workdir$"):
        run(changed(config, optimizer__learning_rate_g=1.0), copy)
    assert (copy / "sweep.json").read_text() == before


def test_cells_are_checked_before_the_folder_is_written(config, tmp_path):
    networks = SCOPE._replace(tables=("4", "networks"))
    weights = changed(config, model__pretrained="vgg16.tv_in1k", model__width=1.0)
    weights.data.name, weights.data.manual_dir = "voc", "/missing"  # not read yet
    with pytest.raises(ValueError, match="fits model.name='fcn8s', not 'resnet50_v15"):
        run(weights, tmp_path / "sweep", scope=networks)
    with pytest.raises(ValueError, match="optimizer.warmup_epochs"):
        run(changed(config, optimizer__warmup_epochs=9.0), tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_single_run_does_not_take_the_folder_of_a_sweep(config, copy):
    before = (copy / "config.json").read_bytes()
    with pytest.raises(ValueError, match="is the folder of a sweep.*--workdir"):
        train.train(config, copy, allow_change=True)
    assert (copy / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    "field, value", [("steps", 7), ("dataset", "other"), ("class_names", ["a", "b"])]
)
def test_a_sweep_is_not_continued_with_other_data(config, copy, field, value):
    path = copy / "sweep.json"
    write_json(path, json.loads(path.read_text()) | {field: value})
    before = path.read_text()
    with pytest.raises(ValueError, match=rf"started with {field} .*another folder"):
        run(config, copy)
    assert path.read_text() == before


def test_two_starts_at_once_lose_no_table(config, tmp_path):
    about = {"steps": 4, "dataset": "d", "class_names": ["a"], "palette": [[0, 0, 0]]}
    val = Split("d", "val", (), ("a",), np.zeros((1, 3), np.uint8))
    names = [*cells.TABLES]

    def claim(name):
        scope = SCOPE._replace(tables=(name,))
        sweep_scope.claim(tmp_path, scope, config, val=val, steps=4)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(claim, names))
    found, saved = read_scope(tmp_path)
    assert sorted(found.tables) == sorted(names) and saved == about


@pytest.fixture
def resumed(copy, monkeypatch):
    """A run that was killed after step 3; to go on with it takes no time."""
    folder = Run("baseline", 0).folder(copy)
    (folder / "final.json").unlink()
    (folder / "checkpoints" / "3").mkdir(parents=True)
    monkeypatch.setattr(train, "train", lambda *_, **__: False)
    monkeypatch.setattr(sweep_run, "finish", lambda *_, **__: {"splits": {}})
    return folder


def test_the_time_of_a_resumed_run_has_that_of_the_steps_before(config, copy, resumed):
    lines = [
        {"step": 2, "train/steps_per_s": 0.01},
        {"step": 2, "val/miou": 0.5},
        {"step": 3, "train/steps_per_s": 0.02},
        {"step": 4, "train/steps_per_s": 1e-6},  # after the checkpoint: taken again
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (resumed / "metrics.jsonl").write_text(text)
    assert run(config, copy)
    seconds = json.loads((resumed / "final.json").read_text())["seconds"]
    assert 200 + 50 <= seconds < 200 + 50 + 60


def test_the_time_of_a_run_whose_log_lacks_steps_is_not_known(config, copy, resumed):
    (resumed / "metrics.jsonl").write_text('{"step": 2, "train/steps_per_s": 1}\n')
    assert run(config, copy)
    assert "seconds" not in json.loads((resumed / "final.json").read_text())
    facts = SweepResults(copy).provenance()
    assert facts["total run time"].endswith(", without 1 whose time is not known")


def test_a_copy_of_a_run_does_not_stop_the_sweep(config, copy):
    folder = Run("baseline", 0).folder(copy)
    shutil.copytree(folder, folder.with_name("seed0_old"))
    assert run(config, copy)


def test_scores_that_are_not_finite_are_null_and_the_report_omits_them(copy):
    paths = list(copy.glob("*/seed0/final.json"))
    assert len(paths) == 2
    for path in paths:
        final = json.loads(path.read_text())
        final["splits"]["val"] |= {"nll": [float("nan")] * 2, "ece": [float("inf")] * 2}
        write_json(path, final)
        assert json.loads(path.read_text())["splits"]["val"]["nll"] == [None, None]
    view = diagnostics.calibration(SweepResults(copy), cells.TABLES["4"].cells)
    for row in view.rows:
        assert row[2] == row[3] == row[5] == row[6] == "–"


def test_a_diverged_run_is_recorded_and_the_sweep_continues(config, copy, monkeypatch):
    def explode(config, folder, *, allow_change):
        raise Diverged("step 1: the loss is not finite ({'loss': nan})")

    monkeypatch.setattr(train, "train", explode)
    assert run(config, copy, scope=SCOPE._replace(seeds=2))
    assert SweepResults(copy).missing() == [
        f"{cells.CELLS[cell].title}: seed 1 diverged (step 1: the loss is not finite)"
        for cell in cells.TABLES["4"].cells
    ]


@pytest.mark.slow
def test_cells_that_differ_in_numbers_share_the_compiled_step(config, copy):
    compiled = TRAIN_STEP._cache_size()
    scope = SCOPE._replace(tables=("controls",), only=("tg0.5", "frozen_d"))
    assert run(config, copy, scope=scope, keep=True)
    assert TRAIN_STEP._cache_size() == compiled
    assert saved(Run("frozen_d", 0).folder(copy))

    evidence = SweepResults(copy)
    change = {
        x: evidence.finished(x)[0]["discriminator_change"]
        for x in ("adversarial", "frozen_d")
    }
    assert change["frozen_d"]["distance"] == 0
    # Adam changes a parameter by at most about the learning rate in each step.
    rate = config.optimizer.learning_rate_d
    assert 0 < change["adversarial"]["largest"] < 4 * 3 * rate
    losses = [evidence.curves(x, "train/loss_seg")[0] for x in ("adversarial", "tg0.5")]
    assert losses[0] != losses[1]


def test_a_run_that_another_process_has_locked_is_skipped(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "train", None)
    with progress.claimed(Run("baseline", 0).folder(tmp_path)) as free:
        assert free
        assert not run(config, tmp_path, scope=SCOPE._replace(only=("baseline",)))
    runs = SCOPE.runs(config)
    assert "2 to do" in progress.view(tmp_path, runs, mine=runs, steps=6)


def test_a_lock_of_another_user_does_not_hide_the_step(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError("the lock belongs to another user")

    run_of_other = Run("baseline", 0)
    folder = run_of_other.folder(tmp_path)
    (folder / "checkpoints" / "3").mkdir(parents=True)
    (folder / ".lock").touch()
    monkeypatch.setattr(progress.filelock.FileLock, "acquire", refuse)
    assert progress.state(tmp_path, run_of_other) == "stopped 3"


def test_time_left_is_estimated_from_runs_of_the_same_kind(config, tmp_path):
    runs = SCOPE._replace(tables=("3",), seeds=2).runs(config)
    assert progress.seconds_left(tmp_path, runs, steps=6) is None
    for cell, seconds in (("baseline", 60.0), ("adversarial", 100.0)):
        path = Run(cell, 0).folder(tmp_path) / "final.json"
        write_json(path, {"seconds": seconds})
    # One baseline and five adversarial runs are left; one of these is half trained.
    (Run("tg2", 1).folder(tmp_path) / "checkpoints" / "3").mkdir(parents=True)
    assert progress.seconds_left(tmp_path, runs, steps=6) == 60 + 4.5 * 100
    shown = progress.view(tmp_path, runs, mine=runs, steps=6)
    assert "2 done, 6 to do; about 8 min left for one process" in shown


def test_no_run_is_started_that_would_not_end_within_the_budget(
    config, copy, monkeypatch
):
    started = []
    monkeypatch.setattr(
        train, "train", lambda *args, **_: started.append(args[1]) or True
    )
    for cell, seconds in (("baseline", 60.0), ("adversarial", 100.0)):
        path = copy / cell / "seed0" / "final.json"
        write_json(path, json.loads(path.read_text()) | {"seconds": seconds})
    scope = SCOPE._replace(seeds=2)
    for minutes, runs in ((0.9, []), (1.1, ["baseline"]), (2.0, ["adversarial"])):
        started.clear()
        only = ("adversarial",) if minutes == 2 else ()
        done = run_sweep(
            config,
            copy,
            scope=scope._replace(only=only),
            shard=(1, 1),
            keep_checkpoints=False,
            budget_minutes=minutes,
        )
        assert not done
        assert started == [str(copy / cell / "seed1") for cell in runs]


def test_the_measured_splits_are_val_part_of_train_and_test(config, tmp_path):
    splits = finish.Splits.load(config, test_split="train", train_images=5)
    assert list(splits.by_name) == ["val", "train", "test"]
    train = builders.load_split(config, config.data.train_split).examples
    last = len(train) - 1  # the first and the last example are included
    assert [x["id"] for x in splits.by_name["train"].examples] == [
        train[round(i * last / 4)]["id"] for i in range(5)
    ]
    with pytest.raises(ValueError, match="nowhere"):
        finish.Splits.load(config, test_split="nowhere", train_images=5)


def test_a_run_is_measured_on_images_whose_labels_it_uses(config):
    splits = finish.Splits.load(config, test_split="", train_images=5)
    assert splits.of_run(config) is splits
    own = changed(config, data__labeled_fraction=0.25)
    labeled = {x["id"] for x in builders.load_training_split(own).examples}
    measured = splits.of_run(own)
    assert {x["id"] for x in measured.by_name["train"].examples} <= labeled
    assert len(measured.by_name["train"].examples) == min(5, len(labeled))
    assert measured.by_name["val"] is splits.by_name["val"]
    assert measured.images_per_epoch == splits.images_per_epoch


def start(config, folder):
    """Start the script in its own process."""
    data = ("data_dir", "batch_size", "crop_size", "num_workers")
    values = SETTINGS | {f"data.{name}": config.data[name] for name in data}
    values["model.width"] = config.model.width
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py")]
    command += [f"--config={ROOT / 'configs' / 'demo.py'}", f"--workdir={folder}"]
    command += ["--table=3", "--cells=baseline,adversarial", "--seeds=1"]
    command += ["--train_images=3"]
    command += [f"--config.{name}={value}" for name, value in values.items()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def saved(folder):
    return [path for path in folder.glob("checkpoints/*") if path.name.isdigit()]


@pytest.mark.slow
def test_a_killed_sweep_resumes_and_gives_the_same_table(config, swept, tmp_path):
    whole, killed = SweepResults(swept[0]), tmp_path / "killed"
    baseline, adversarial = (
        Run(cell, 0).folder(killed) for cell in ("baseline", "adversarial")
    )
    process = start(config, killed)
    end = time.monotonic() + 120
    while not saved(adversarial):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (baseline / "final.json").exists()
    assert not (adversarial / "final.json").exists()
    before = (baseline / "final.json").stat().st_mtime_ns

    process = start(config, killed)
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 0, output
    assert "Resuming at step" in output
    assert (baseline / "final.json").stat().st_mtime_ns == before

    resumed = SweepResults(killed)
    views = [tables.results(x, "3", "val") for x in (whole, resumed)]
    assert views[0].rows[:2] == views[1].rows[:2]
    for cell in ("baseline", "adversarial"):
        a, b = (x.measurements(cell, "val")[0] for x in (whole, resumed))
        np.testing.assert_array_equal(a.confusion, b.confusion)
        # Floating-point sums may differ in another process.
        np.testing.assert_allclose(a.nats, b.nats, rtol=1e-5)
