"""The measurement of one split, against a loop over its images."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tempseg_jax import builders
from tempseg_jax.data import pipeline
from tempseg_jax.evaluation import calibration
from tempseg_jax.evaluation.calibration import Tally
from tempseg_jax.evaluation.evaluator import (
    PredictedImage,
    ScoredImage,
    evaluate_split,
)
from tempseg_jax.inference.settings import DEFAULT_SETTINGS
from tempseg_jax.models.segmenter import predict
from tempseg_jax.sweep.measurement import Measurement, collect


@pytest.mark.slow
def test_a_measurement_agrees_with_a_loop_over_images(demo_config):
    split = builders.load_split(demo_config, "val")
    split = dataclasses.replace(split, examples=[split.examples[i] for i in range(3)])
    objective = builders.build_objective(demo_config, num_classes=8)
    state = builders.initial_state(demo_config, objective, class_names=())
    variables = state.segmenter.variables
    # The score layers start at zero, where a temperature has no effect.
    rng = np.random.default_rng(1)
    variables = variables | {
        "params": jax.tree.map(
            lambda x: x + rng.normal(scale=0.05, size=x.shape).astype(np.float32),
            variables["params"],
        )
    }
    batches = list(
        pipeline.eval_batches(
            split, batch_size=2, num_workers=0, process_index=0, process_count=1
        )
    )
    images = evaluate_split(
        variables,
        split,
        segmenter=objective.segmenter,
        batch_size=2,
        num_workers=0,
        settings=DEFAULT_SETTINGS,
        temperatures=(1.0, 0.5),
    )
    measurement, kept = collect(images, keep=frozenset(["val_0001"]))
    assert measurement.ids == ["val_0000", "val_0001", "val_0002"]
    assert [example.id for example in kept] == ["val_0001"]
    forward = jax.jit(functools.partial(predict, segmenter=objective.segmenter))
    nats, bins = np.zeros((3, 2)), np.zeros((2, 15, 3))
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
            measurement.confusion[n],
            np.bincount(y * 8 + guess, minlength=64).reshape(8, 8),
        )
        for t, temperature in enumerate((1.0, 0.5)):
            p = np.exp(z / temperature)
            p /= p.sum(-1, keepdims=True)
            nats[n, t] = -np.log(p[np.arange(len(y)), y]).sum()
            confidence = p.max(-1)
            index = np.minimum(np.ceil(confidence * 15).astype(int) - 1, 14)
            for b in range(15):
                inside = index == b
                correct = (guess == y)[inside].sum()
                bins[t, b] += inside.sum(), correct, confidence[inside].sum()
    np.testing.assert_allclose(measurement.nats, nats, rtol=1e-4)
    # Rounding may move a pixel at the edge of two bins to the other bin.
    np.testing.assert_allclose(measurement.bins, bins, rtol=1e-3, atol=8)
    np.testing.assert_allclose(
        measurement.nll, nats.sum(0) / measurement.confusion.sum()
    )
    assert np.all((measurement.ece >= 0) & (measurement.ece <= 1))


def test_ece_of_a_calibrated_and_of_an_overconfident_network():
    bins = np.zeros((2, calibration.BINS, 3))
    bins[0, -1] = 10, 10, 10  # always correct, confidence 1
    bins[1, -1] = 10, 4, 10  # confidence 1, correct at 4 of 10 pixels
    counts = np.diag([10, 0])[None]
    measurement = Measurement(["a"], counts, np.zeros((1, 2)), bins)
    np.testing.assert_allclose(measurement.ece, [0, 0.6])


def test_kept_images_do_not_hold_their_batch_in_memory():
    batch = np.zeros((8, 4, 4, 3), np.uint8)
    tally = Tally(*(np.zeros((1, calibration.BINS)) for _ in Tally._fields))
    tally = tally._replace(nll=np.zeros(1), slope=np.zeros(1))
    images = [
        ScoredImage(
            PredictedImage(str(i), batch[i], batch[i, ..., 0], batch[i, ..., 1]),
            np.zeros((2, 2), np.int64),
            tally,
        )
        for i in range(8)
    ]
    _, (kept,) = collect(images, keep=frozenset({"3"}))
    assert kept.id == "3"
    for array in (kept.image, kept.label, kept.prediction):
        assert not np.shares_memory(array, batch)
