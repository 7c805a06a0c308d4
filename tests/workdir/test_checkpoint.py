import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import optim, precision, train_state
from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.workdir import formats
from tempseg_jax.workdir.checkpoint import Checkpoints

MODEL = {
    "head": "score",
    "output_stride": None,
    "auxiliary": False,
    "drop_connect": 0.0,
    "name": "fcn8s",
    "width": 1.0,
    "num_classes": 3,
    "discriminator": "dcgan",
    "preprocessing": TORCHVISION._asdict(),
    "precision": "float32",
    "class_names": ("ground", "stone", "brick"),
}


def make_state(step, *, adversarial=True, precision_name="float32", channels=4):
    """Return a state whose arrays all differ, and differ from those of other steps."""
    variables = {
        "params": {"conv": {"kernel": jnp.ones((1, 1, 3, channels))}},
        "batch_stats": {"bn": {"mean": jnp.zeros(channels)}},
    }
    scale = precision.loss_scale(precision_name)
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    adam = optim.adam(learning_rate=0.0)
    state = train_state.TrainState(
        jnp.int32(0),
        train_state.init_player(variables, sgd, loss_scale=scale),
        train_state.init_player(variables, adam, loss_scale=scale)
        if adversarial
        else None,
    )
    leaves, tree = jax.tree.flatten(state)
    numbered = [
        jnp.full_like(x, 100 * step + i) if i else jnp.int32(step)
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, numbered)


@pytest.fixture
def save(tmp_path):
    """Save states in a workdir and close it, as at the end of a run."""

    def save(*scored_steps, model=MODEL, **kwargs):
        checkpoints = Checkpoints(tmp_path)
        for step, miou in scored_steps:
            new = step not in checkpoints.steps()
            checkpoints.save(make_state(step, **kwargs), model)
            if new and miou is not None:
                checkpoints.add_scores(step, {"miou": miou, "pacc": 0.5})
        checkpoints.close()
        return Checkpoints(tmp_path)

    return save


def assert_equal(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("precision_name", ["float32", "float16"])
@pytest.mark.parametrize("adversarial", [True, False])
def test_the_whole_state_is_restored_exactly(save, adversarial, precision_name):
    kind = dict(adversarial=adversarial, precision_name=precision_name)
    model = MODEL | {
        "discriminator": "dcgan" if adversarial else None,
        "precision": precision_name,
    }
    checkpoints = save((7, 0.5), model=model, **kind)
    restored = checkpoints.restore(make_state(0, **kind), model, step=7)
    assert_equal(restored, make_state(7, **kind))


def test_the_segmenter_restores_without_the_discriminator(save):
    checkpoints = save((7, 0.5))
    like = make_state(0).segmenter.variables
    model = MODEL | {"discriminator": None}
    restored = checkpoints.restore_segmenter(like, model, step=7)
    assert_equal(restored, make_state(7).segmenter.variables)


def test_only_the_latest_two_and_the_best_are_kept(save):
    checkpoints = save((1, 0.2), (2, 0.6), (3, 0.4), (4, None), (5, 0.5), (6, None))
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.resolve("best") == 2
    assert checkpoints.resolve("latest") == 6
    assert checkpoints.resolve("6") == checkpoints.resolve(6) == 6


def test_the_best_is_still_known_after_a_resume(save):
    save((1, 0.2), (2, 0.6), (3, 0.4))
    checkpoints = save((4, 0.5), (5, 0.5))
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.resolve("best") == 2
    checkpoints = save((6, 0.7))
    assert checkpoints.resolve("best") == 6
    assert checkpoints.steps() == [5, 6]


def test_the_best_is_the_latest_if_none_was_evaluated(save):
    checkpoints = save((1, None), (2, None), (3, None))
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.resolve("best") == 3


def test_a_score_of_nan_is_never_the_best(save):
    # Scores are NaN if every validation pixel is void.
    checkpoints = save((1, float("nan")), (2, 0.1), (3, float("nan")))
    assert checkpoints.resolve("best") == 2
    assert checkpoints.steps() == [2, 3]


def test_saving_a_step_again_changes_nothing(save):
    save((3, 0.5))
    checkpoints = save((3, 0.9), channels=8)
    restored = checkpoints.restore(make_state(0), MODEL, step=3)
    assert_equal(restored, make_state(3))


@pytest.mark.parametrize("step", ["best", "latest", "4", 4, "newest", "-1"])
def test_a_missing_checkpoint_is_refused_with_those_that_are_available(save, step):
    checkpoints = save((1, 0.2), (2, 0.6))
    if step in ("best", "latest"):
        shutil.rmtree(checkpoints.folder)
        checkpoints = Checkpoints(checkpoints.folder.parent)
        message = f"{checkpoints.folder}: no checkpoint {step!r} .available: none"
    else:
        message = f"no checkpoint {step!r} .available: 1, 2.*give best, latest or one"
    with pytest.raises(FileNotFoundError, match=message):
        checkpoints.resolve(step)


def test_opening_a_folder_creates_nothing(tmp_path):
    assert Checkpoints(tmp_path / "none").steps() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "field, value",
    [("drop_connect", 0.5), ("class_names", ("brick", "stone", "ground"))],
)
def test_inference_refuses_other_classes_and_another_drop_connect(save, field, value):
    checkpoints = save((7, 0.5))
    like = make_state(0).segmenter.variables
    with pytest.raises(ValueError, match=f"checkpoints/7: {field} is .* in the config"):
        checkpoints.restore_segmenter(like, MODEL | {field: value}, step=7)
    checkpoints.restore(make_state(0), MODEL | {field: value}, step=7)


@pytest.mark.parametrize(
    "field, value",
    [
        ("name", "resnet50"),
        ("num_classes", 21),
        ("width", 0.5),
        ("preprocessing", CAFFE._asdict()),
        ("discriminator", None),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_the_field_that_differs(
    save, field, value
):
    checkpoints = save((7, 0.5))
    other = MODEL | {field: value}
    message = (
        f"checkpoints/7: {field} is .* in the checkpoint and .* in the config; use"
    )
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(make_state(0), other, step=7)
    if field != "discriminator":
        with pytest.raises(ValueError, match=message):
            like = make_state(0).segmenter.variables
            checkpoints.restore_segmenter(like, other, step=7)


@pytest.mark.parametrize(
    "saved, wanted", [("float16", "float32"), ("float32", "float16")]
)
def test_training_resumes_in_another_precision(save, saved, wanted):
    # The remedy that is printed when a run in float16 diverges.
    checkpoints = save(
        (7, 0.5), precision_name=saved, model=MODEL | {"precision": saved}
    )
    like, model = make_state(0, precision_name=wanted), MODEL | {"precision": wanted}
    state = checkpoints.restore(like, model, step=7)
    expected = make_state(7, precision_name=saved)
    for name in ("segmenter", "discriminator"):
        actual, player = getattr(state, name), getattr(expected, name)
        assert_equal(actual.variables, player.variables)
        assert_equal(actual.opt_state, player.opt_state)
        assert_equal(actual.loss_scale, precision.loss_scale(wanted))
    jax.jit(lambda state: state, donate_argnums=0)(state)  # donates as the step does


def test_an_interrupted_save_is_not_a_checkpoint(save):
    checkpoints = save((1, 0.2))
    whole = checkpoints.folder / "1"
    shutil.copytree(whole, checkpoints.folder / "2.orbax-checkpoint-tmp")
    reopened = Checkpoints(checkpoints.folder.parent)
    assert reopened.steps() == [1]
    reopened.save(make_state(2), MODEL)
    reopened.close()
    assert Checkpoints(checkpoints.folder.parent).steps() == [1, 2]


def test_the_model_item_describes_the_segmenter(save):
    checkpoints = save((7, 0.5))
    assert checkpoints.model(7) == json.loads(json.dumps(MODEL))
    assert checkpoints.training_preprocessing(7) == TORCHVISION


def test_the_model_item_carries_the_format_number(save):
    checkpoints = save((7, 0.5))
    item = (checkpoints.folder / "7" / "model" / "metadata").read_text()
    assert json.loads(item)["format"] == formats.FORMAT


def test_a_checkpoint_of_a_newer_format_is_refused(save, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(formats, "FORMAT", formats.FORMAT + 1)
        checkpoints = save((7, 0.5))
    like = make_state(0)
    message = f"7/model: its format is {formats.FORMAT + 1}, and .* reads formats 1 to"
    for read in (
        lambda: checkpoints.model(7),
        lambda: checkpoints.restore(like, MODEL, step=7),
        lambda: checkpoints.restore_segmenter(like.segmenter.variables, MODEL, step=7),
    ):
        with pytest.raises(ValueError, match=message):
            read()
