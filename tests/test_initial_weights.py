"""Training that starts from the segmenter of another run."""

import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax import builders, train
from tempseg_jax.builders import initial_weights
from tempseg_jax.inference import published, restore
from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.checkpoint import Checkpoints
from tempseg_jax.workdir.metrics_writer import read_metrics
from tests.support import save_teacher


@pytest.fixture
def config(demo_config):
    """A config whose random initial values are not those of the run."""
    demo_config.seed = 3
    return demo_config


def start(config, source, class_names):
    """Return the segmenter's variables before training, by path."""
    config.model.pretrained = str(source)
    objective = builders.build_objective(config, num_classes=len(class_names))
    state = builders.initial_state(config, objective, class_names=class_names)
    return flatten_dict(state.segmenter.variables, sep="/")


def of_run(source):
    return flatten_dict(restore.load(source).variables, sep="/")


def equal(variables, others):
    return {
        name
        for name, value in variables.items()
        if name in others and np.array_equal(value, others[name])
    }


def test_all_layers_of_a_run_with_the_same_classes_are_taken(
    config, saved_run, tmp_path, capsys
):
    names = builders.class_names(config)
    variables = start(config, saved_run, names)
    assert equal(variables, of_run(saved_run)) == set(variables)
    printed = capsys.readouterr().out
    assert f"pretrained: {saved_run} (step 7, scenes, the same classes; " in printed
    assert "freshly initialized: none" in printed
    run = restore.load(saved_run)
    out = tmp_path / "published"
    published.write(run.variables, run.model, step=7, card="", config=None, out=out)
    again = start(config, out, names)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_the_scores_of_other_classes_are_not(config, saved_run, capsys):
    names = ("a", *builders.class_names(config)[1:])
    fresh = start(config, "", names)
    trained = of_run(saved_run)
    for classes in (names, ("a", "b", "c")):
        variables = start(config, saved_run, classes)
        taken = equal(variables, trained)
        left = set(variables) - taken
        assert {name.split("/")[1] for name in left} == {
            "score_fc7",
            "score_pool3",
            "score_pool4",
            "upsample8",
        }
        printed = capsys.readouterr().out
        assert ", other classes; " in printed
        assert "freshly initialized: score_fc7, " in printed
    assert equal(start(config, saved_run, names), fresh) == left


def test_the_preprocessing_is_that_of_the_run(config, tmp_path):
    split = builders.load_split(config, "val")
    objective = builders.build_objective(
        config, num_classes=len(split.class_names), preprocessing=CAFFE
    )
    state = builders.initial_state(config, objective, class_names=split.class_names)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, builders.describe_model(config, objective, split))
    checkpoints.close()
    assert initial_weights.preprocessing_of("") == TORCHVISION
    assert initial_weights.preprocessing_of(str(tmp_path)) == CAFFE
    config.model.pretrained = str(tmp_path)
    built = builders.build_objective(config, num_classes=len(split.class_names))
    assert built.segmenter.preprocessing == CAFFE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 0.1}, r"has the shape \(.*\) in .* and \(.*\) in this network; set"),
        ({"name": "resnet50"}, "is a run of model.name='fcn8s', not 'resnet50'"),
        ({"pretrained_missing": ("conv5",)}, "names tensors of a file, but .* a run"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(config, saved_run, changes, message):
    config.model.update(changes)
    with pytest.raises(ValueError, match=message):
        start(config, saved_run, builders.class_names(config))


@pytest.mark.parametrize("field", ["name", "pretrained_missing"])
def test_a_run_that_does_not_fit_is_found_without_its_weights(config, saved_run, field):
    config.model.pretrained = str(saved_run)
    initial_weights.check_fits({}, config.model)
    config.model[field] = {"name": "resnet50", "pretrained_missing": ("x",)}[field]
    with pytest.raises(ValueError, match=f"model.pretrained.*{config.model[field]}"):
        initial_weights.check_fits({}, config.model)


def test_what_is_no_run_is_named(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'"):
        start(config, tmp_path, builders.class_names(config))
    with pytest.raises(ValueError, match="nor the path of a file or of a run"):
        start(config, tmp_path / "missing", builders.class_names(config))


def test_training_starts_from_a_run_and_resumes_without_it(config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    save_teacher(config, first)
    config.model.pretrained = str(first)
    config.steps, config.save_every_steps = 4, 2
    config.optimizer.learning_rate_g = 0.0
    config.optimizer.learning_rate_d = 0.0
    train.train(config, second, allow_change=False)
    trained, source = of_run(second), of_run(first)
    assert equal(trained, source) == set(source)  # FCN-8s has no running statistics
    shutil.rmtree(second / "checkpoints" / "4")
    shutil.rmtree(first)
    train.train(config, second, allow_change=False)
    assert read_metrics(second)[-1]["step"] == 4
    jax.tree.map(np.testing.assert_array_equal, of_run(second), trained)


def test_a_run_in_another_folder_is_another_run(config, tmp_path):
    config.model.pretrained = "runs/a/seed0"
    saved_config.claim(tmp_path, config, allow_change=False)
    config.model.pretrained = "runs/b/seed0"
    with pytest.raises(ValueError, match="belongs to another config .model.pretrained"):
        saved_config.check(tmp_path, config)
