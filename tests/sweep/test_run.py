import functools
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tempseg_jax import builders, steps, train
from tempseg_jax.data import pipeline
from tempseg_jax.evaluation import calibration, metrics
from tempseg_jax.plan import Plan
from tempseg_jax.sweep import cells, finish, measure, progress, store
from tempseg_jax.sweep.report import tables
from tempseg_jax.sweep.report.collect import SweepResults
from tempseg_jax.sweep.run import parse_shard, run_sweep
from tempseg_jax.sweep.scope import Scope, read_scope
from tempseg_jax.sweep.store import Run
from tests.support import ROOT, make_demo_config

SCOPE = Scope(tables=("4",), seeds=1, test_split="", train_images=3)


SETTINGS = {
    "steps": 4,
    "save_every_steps": 1,
    "log_every_steps": 2,
    "evaluate_every_epochs": 100.0,  # at the end
}


@pytest.fixture(scope="module")
def config(data_dir):
    """A run of four steps that saves after each."""
    config = make_demo_config(data_dir)
    config.update_from_flattened_dict(SETTINGS)
    return config.lock()


def run(config, folder, *, scope=SCOPE, only=(), shard=(1, 1), keep=False):
    return run_sweep(
        config, folder, scope=scope, only=only, shard=shard, keep_checkpoints=keep
    )


@pytest.fixture(scope="module")
def swept(config, tmp_path_factory):
    """A finished sweep of table 4, and how many steps it compiled."""
    folder = tmp_path_factory.mktemp("swept")
    before = train.TRAIN_STEP._cache_size()
    assert run(config, folder)
    return folder, train.TRAIN_STEP._cache_size() - before


@pytest.fixture
def copy(swept, tmp_path):
    """A finished sweep to change."""
    return shutil.copytree(swept[0], tmp_path / "copy")


def changed(config, **values):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in values.items()}
    )
    return other


def test_every_cell_overrides_fields_that_the_config_has(demo_config):
    for cell in cells.CELLS:
        found = cells.configure(demo_config, cell, seed=7)
        assert found.seed == 7
        assert set(found.objective) == set(demo_config.objective)
        assert set(found.optimizer) == set(demo_config.optimizer)


def test_the_cells_of_table_3_are_the_papers(demo_config):
    found = [
        cells.configure(demo_config, cell, seed=0).objective
        for cell in cells.TABLES["3"].cells
    ]
    assert [x.alpha for x in found] == [0.0, 0.05, 0.05, 0.05]
    assert [x.temperature_g for x in found] == [1.0, 1.0, 0.5, 2.0]
    assert [x.temperature_d for x in found] == [1.0] * 4


def test_a_control_differs_from_what_it_is_held_against_in_one_thing(demo_config):
    def flat(cell):
        config = cells.configure(demo_config, cell, seed=0)
        hyper = builders.hyperparameters(config, Plan(2, 1, 1))._asdict()
        hyper.pop("schedule")
        hyper["mask_void"] = config.objective.mask_void
        if not hyper["alpha"]:  # without D these act on nothing
            hyper |= {"temperature_adv": None, "temperature_d": None}
        return hyper

    changed = {
        (contrast.cell, contrast.against): {
            name
            for name, value in flat(contrast.cell).items()
            if value != flat(contrast.against)[name]
        }
        for contrast in cells.CONTRASTS
    }
    without_d = {"alpha", "temperature_adv", "temperature_d"}
    both = {"temperature_seg", "temperature_adv"}
    assert changed == {
        ("adversarial", "baseline"): without_d,
        ("tg0.5", "adversarial"): both,
        ("seg_only", "baseline"): {"temperature_seg"},
        ("tg0.5", "seg_only"): without_d,
        ("tg0.5", "rate_matched"): both | {"learning_rate_g"},
        ("adv_only", "adversarial"): {"temperature_adv"},
        ("adversarial", "frozen_d"): {"learning_rate_d"},
        ("learning_d", "adversarial"): {"learning_rate_d"},
        ("void_shown", "adversarial"): {"mask_void"},
    }


def test_the_matched_rate_is_that_of_the_gradients_scale(demo_config):
    matched = cells.configure(demo_config, "rate_matched", seed=0)
    halved = cells.configure(demo_config, "tg0.5", seed=0)
    scale = 1 / halved.objective.temperature_g
    rate = halved.optimizer.learning_rate_g * scale
    assert matched.optimizer.learning_rate_g == rate


def test_a_cell_of_several_tables_is_trained_once(demo_config):
    assert cells.trained_as(demo_config, "lambda0") == "baseline"
    demo_config.optimizer.weight_decay = 5e-4
    assert cells.trained_as(demo_config, "lambda0") == "lambda0"
    assert cells.trained_as(demo_config, "lambda5e-4") == "baseline"
    chosen = cells.choose(demo_config, ("1", "2", "3", "controls"))
    assert len(chosen) == len(set(chosen)) == 15


def test_a_sweep_without_an_adversary_is_refused(demo_config):
    demo_config.objective.alpha = 0.0
    with pytest.raises(ValueError, match=r"objective\.alpha"):
        cells.choose(demo_config, ("3",))


def test_an_unknown_table_or_cell_is_refused(demo_config, tmp_path):
    with pytest.raises(ValueError, match="'5' is not one of 1, 2, 3, 4, controls"):
        cells.choose(demo_config, ("5",))
    with pytest.raises(ValueError, match="'td2' is not a cell of these tables"):
        run(demo_config, tmp_path, only=["td2"])
    assert not list(tmp_path.iterdir())


def test_each_shard_trains_its_own_runs_and_all_of_them_everything(
    config, tmp_path, monkeypatch
):
    trained = []

    def record(own, folder, **_):
        trained.append(Run(*Path(folder).parts[-2:]))
        raise train.Diverged("recorded, not trained")

    monkeypatch.setattr(train, "train", record)
    scope = SCOPE._replace(tables=("3",), seeds=2)
    assert run(config, tmp_path, scope=scope, shard=(2, 3))
    # In the outer loop seeds; of those eight the second, the fifth and the eighth.
    second = [("adversarial", "seed0"), ("baseline", "seed1"), ("tg2", "seed1")]
    assert trained == second
    for i in (1, 3):
        assert run(config, tmp_path, scope=scope, shard=(i, 3))
    everything = {(x.cell, f"seed{x.seed}") for x in scope.runs(config)}
    assert len(trained) == len(everything) == 8 and set(trained) == everything


def test_a_shard_is_one_of_n():
    assert parse_shard("1/1") == (1, 1) and parse_shard("3/12") == (3, 12)
    for text in ("0/3", "4/3", "-1/3", "1", "1/", "a/b", "1/2/3"):
        with pytest.raises(ValueError, match="is not i/n with 1 <= i <= n"):
            parse_shard(text)


def sweep_script(*flags):
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_status_needs_the_folder_alone(swept):
    found = sweep_script("--status", f"--workdir={swept[0]}")
    assert found.returncode == 0, found.stderr
    assert "2 runs: 2 done, 0 to do" in found.stdout


def test_a_shard_that_there_is_not_is_refused_before_anything_is_made(tmp_path):
    config = ROOT / "configs" / "demo.py"
    folder = tmp_path / "sweep"
    found = sweep_script("--shard=4/3", f"--config={config}", f"--workdir={folder}")
    assert found.returncode == 1 and not folder.exists()
    assert found.stderr.splitlines()[-1].startswith("error: --shard: '4/3'")


def test_a_measurement_agrees_with_an_obvious_one(demo_config):
    split = builders.load_split(demo_config, "val")
    split = split.__class__(
        **vars(split) | {"examples": [split.examples[i] for i in range(3)]}
    )
    objective = builders.build_objective(
        demo_config, num_classes=len(split.class_names)
    )
    variables = builders.initial_state(demo_config, objective).segmenter.variables
    batches = list(
        pipeline.eval_batches(
            split, batch_size=2, num_workers=0, process_index=0, process_count=1
        )
    )
    found, pictures = measure.measure(
        variables,
        batches,
        segmenter=objective.segmenter,
        num_classes=len(split.class_names),
        temperatures=(1.0, 0.5),
        pictures_of=frozenset(["val_0001"]),
    )
    assert found.ids == ["val_0000", "val_0001", "val_0002"]
    assert [picture.id for picture in pictures] == ["val_0001"]
    forward = jax.jit(functools.partial(steps.predict, segmenter=objective.segmenter))
    nats, certain = np.zeros((3, 2)), np.zeros((2, 15, 3))
    images = [
        (batch["image"][i : i + 1], batch["label"][i])
        for batch in batches
        for i in range(2)
        if batch["size"][i][0]
    ]
    for n, (image, label) in enumerate(images):
        logits = np.asarray(forward(variables, image))[0]
        scored = label != 255
        z, y = logits[scored].astype(np.float64), label[scored]
        guess = z.argmax(-1)
        np.testing.assert_array_equal(
            found.confusion[n],
            np.bincount(y * 8 + guess, minlength=64).reshape(8, 8),
        )
        for t, temperature in enumerate((1.0, 0.5)):
            p = np.exp(z / temperature)
            p /= p.sum(-1, keepdims=True)
            nats[n, t] = -np.log(p[np.arange(len(y)), y]).sum()
            confidence = p.max(-1)
            bins = np.minimum(np.ceil(confidence * 15).astype(int) - 1, 14)
            for b in range(15):
                inside = bins == b
                right = (guess == y)[inside].sum()
                certain[t, b] += inside.sum(), right, confidence[inside].sum()
    np.testing.assert_allclose(found.nats, nats, rtol=1e-4)
    # A pixel at the edge of two bins may fall into either.
    np.testing.assert_allclose(found.bins, certain, rtol=1e-3, atol=8)
    np.testing.assert_allclose(found.nll, nats.sum(0) / found.confusion.sum())
    assert np.all((found.ece >= 0) & (found.ece <= 1))


def test_calibration_of_a_perfect_and_of_a_boastful_network():
    bins = np.zeros((2, calibration.BINS, 3))
    bins[0, -1] = 10, 10, 10  # always right, always sure
    bins[1, -1] = 10, 4, 10  # sure, and right four times of ten
    counts = np.diag([10, 0])[None]
    found = measure.Measurement(["a"], counts, np.zeros((1, 2)), bins)
    np.testing.assert_allclose(found.ece, [0, 0.6])


def test_a_sweep_compiles_two_steps_with_and_without_an_adversary(swept):
    assert swept[1] == 2


def test_a_sweep_leaves_what_the_report_reads_and_no_checkpoints(swept):
    evidence = SweepResults(swept[0])
    assert evidence.missing() == []
    for cell in cells.TABLES["4"].cells:
        assert not (Run(cell, 0).folder(swept[0]) / "checkpoints").exists()
        (found,) = evidence.measurements(cell, "val").values()
        logged = evidence.curves(cell, "val/miou")[0][-1]
        again = metrics.scores(found.confusion.sum(0))["miou"]
        assert logged == (4, pytest.approx(again))
        (ending,) = evidence.finished(cell).values()
        assert ending["splits"]["train"]["images"] == 3
        assert "commit" in ending["provenance"] or not (ROOT / ".git").exists()
        assert ("discriminator_change" in ending) == (cell != "baseline")
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


def test_other_settings_are_refused_in_the_folder_of_a_sweep(config, copy):
    before = (copy / "sweep.json").read_text()
    with pytest.raises(ValueError, match="train_images=3, not 4"):
        run(config, copy, scope=SCOPE._replace(train_images=4))
    with pytest.raises(ValueError, match="another config"):
        run(changed(config, optimizer__learning_rate_g=1.0), copy)
    assert (copy / "sweep.json").read_text() == before


def test_a_diverged_run_is_recorded_and_the_sweep_goes_on(config, copy, monkeypatch):
    def explode(config, folder, *, allow_change):
        raise train.Diverged("step 1: the loss is not finite ({'loss': nan})")

    monkeypatch.setattr(train, "train", explode)
    assert run(config, copy, scope=SCOPE._replace(seeds=2))
    assert SweepResults(copy).missing() == [
        f"{cells.CELLS[cell].title}: seed 1 diverged (step 1: the loss is not finite)"
        for cell in cells.TABLES["4"].cells
    ]


def test_cells_that_differ_in_numbers_share_what_was_compiled(config, copy):
    compiled = train.TRAIN_STEP._cache_size()
    scope, only = SCOPE._replace(tables=("controls",)), ["tg0.5", "frozen_d"]
    assert run(config, copy, scope=scope, only=only, keep=True)
    assert train.TRAIN_STEP._cache_size() == compiled
    assert saved(Run("frozen_d", 0).folder(copy))

    evidence = SweepResults(copy)
    change = {
        x: evidence.finished(x)[0]["discriminator_change"]
        for x in ("adversarial", "frozen_d")
    }
    assert change["frozen_d"]["distance"] == 0
    # Adam moves a weight by about its rate in each of the four steps, or less.
    rate = config.optimizer.learning_rate_d
    assert 0 < change["adversarial"]["largest"] < 4 * 3 * rate
    losses = [evidence.curves(x, "train/loss_seg")[0] for x in ("adversarial", "tg0.5")]
    assert losses[0] != losses[1]


def test_a_run_that_another_process_holds_is_left_to_it(config, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train", None)
    with progress.claimed(Run("baseline", 0).folder(tmp_path)) as free:
        assert free
        assert not run(config, tmp_path, only=["baseline"])
    runs = SCOPE.runs(config)
    assert "2 to do" in progress.view(tmp_path, runs, mine=runs, steps=6)


def test_time_left_is_that_of_finished_runs_of_the_same_kind(config, tmp_path):
    runs = SCOPE._replace(tables=("3",), seeds=2).runs(config)
    assert progress.seconds_left(tmp_path, runs, steps=6) is None
    for cell, seconds in (("baseline", 60.0), ("adversarial", 100.0)):
        path = Run(cell, 0).folder(tmp_path) / "final.json"
        store.write_json(path, {"seconds": seconds})
    # Left: one baseline, five adversarial; of one of them half is done.
    (Run("tg2", 1).folder(tmp_path) / "checkpoints" / "3").mkdir(parents=True)
    assert progress.seconds_left(tmp_path, runs, steps=6) == 60 + 4.5 * 100
    shown = progress.view(tmp_path, runs, mine=runs, steps=6)
    assert "2 done, 6 to do; about 0 h 08 min left" in shown


def test_a_test_split_is_scored_beside_val(config, tmp_path):
    splits = finish.Splits.load(config, test_split="train", train_images=5)
    assert list(splits) == ["val", "train", "test"]
    train = builders.load_split(config, config.data.train_split).examples
    last = len(train) - 1  # the first and the last are among them
    assert [x["id"] for x in splits["train"].examples] == [
        train[round(i * last / 4)]["id"] for i in range(5)
    ]
    with pytest.raises(ValueError, match="nowhere"):
        finish.Splits.load(config, test_split="nowhere", train_images=5)


def start(config, folder):
    """Run the script as a user does."""
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


def test_a_killed_sweep_goes_on_and_gives_the_same_table(config, swept, tmp_path):
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

    found = SweepResults(killed)
    views = [tables.results(x, "3", "val") for x in (whole, found)]
    assert views[0].rows[:2] == views[1].rows[:2]
    for cell in ("baseline", "adversarial"):
        a, b = (x.measurements(cell, "val")[0] for x in (whole, found))
        np.testing.assert_array_equal(a.confusion, b.confusion)
        # Another process may add in another order.
        np.testing.assert_allclose(a.nats, b.nats, rtol=1e-5)
