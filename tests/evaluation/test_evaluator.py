"""Scores of a whole split, by a network that predicts each pixel's red value."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import mesh
from tempseg_jax.data import codec, pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import batch_scores
from tempseg_jax.evaluation.evaluator import (
    Sums,
    evaluate_batches,
    evaluate_split,
)
from tempseg_jax.inference.settings import DEFAULT_SETTINGS, InferenceSettings
from tempseg_jax.types import IGNORE_LABEL

CLASSES = 21
SIZES = [
    (40, 30),
    (30, 40),
    (130, 20),
    (40, 30),
    (64, 64),
    (7, 5),
    (128, 128),
    (40, 30),
]


class RedIsTheClass(nn.Module):
    """Predict class `red`, with fixed confidence."""

    @nn.compact
    def __call__(self, image, *, train):
        assert not train
        red = jnp.minimum(image[..., 0], CLASSES - 1)
        return 3 * jax.nn.one_hot(red, CLASSES)


def make_images():
    """Yield images whose red values are correct at two thirds of the pixels."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        label = rng.integers(0, CLASSES, (height, width)).astype(np.uint8)
        label[label == 4] = 5  # class 4 does not occur
        red = np.where(rng.random(label.shape) < 0.67, label, 5)
        label[rng.random(label.shape) < 0.2] = IGNORE_LABEL
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        image[..., 0] = red
        yield image, label


IMAGES = list(make_images())


def make_split():
    records = [
        {
            "id": f"image_{i}",
            "image": codec.encode_image(image),
            "label": codec.encode_label(label),
        }
        for i, (image, label) in enumerate(IMAGES)
    ]
    names = tuple(f"class {i}" for i in range(CLASSES))
    return Split("tiny", "val", records, names, np.zeros((CLASSES, 3), np.uint8))


@pytest.fixture(scope="module")
def split():
    return make_split()


def score_images(split, *, batch_size, process=(0, 1), settings=DEFAULT_SETTINGS):
    """Return the scored images of one process."""
    local = mesh.local_mesh()
    images = evaluate_batches(
        {},
        pipeline.eval_batches(
            split,
            batch_size=batch_size,
            num_workers=0,
            process_index=process[0],
            process_count=process[1],
        ),
        segmenter=RedIsTheClass(),
        num_classes=CLASSES,
        settings=settings,
        temperatures=(1.0,),
        devices=local,
    )
    return list(images)


def run(split, **options):
    """Return the sums and the examples of one process."""
    sums, examples = Sums.zeros(num_classes=CLASSES, num_temperatures=1), []
    for scored in score_images(split, **options):
        sums = sums.add(scored)
        examples.append(scored.predicted)
    return sums, examples


def count_image(image, label):
    """Count one pixel at a time."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for truth, guess in zip(label.ravel(), image[..., 0].ravel(), strict=True):
        if truth != IGNORE_LABEL:
            confusion[truth, guess] += 1
    return confusion


def count():
    return sum(count_image(image, label) for image, label in IMAGES)


@pytest.fixture(scope="module")
def expected():
    return count()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_image_is_counted_once_with_every_batch_size(split, expected, batch_size):
    sums, examples = run(split, batch_size=batch_size)
    np.testing.assert_array_equal(sums.confusion, expected)
    assert sums.images == len(IMAGES)
    assert sorted(example.id for example in examples) == [
        f"image_{i}" for i in range(len(IMAGES))
    ]


def test_examples_are_the_images_at_their_native_size(split):
    _, examples = run(split, batch_size=3)
    assert len(examples) == len(IMAGES)
    for example in examples:
        image, label = IMAGES[int(example.id.removeprefix("image_"))]
        np.testing.assert_array_equal(example.image, image)
        np.testing.assert_array_equal(example.label, label)
        np.testing.assert_array_equal(example.prediction, image[..., 0])


WINDOWS = InferenceSettings(window=32, stride=20, scales=(1.0,), flip=True)


@pytest.mark.parametrize(
    "settings", [DEFAULT_SETTINGS, WINDOWS], ids=["whole", "windows"]
)
def test_each_image_has_its_own_confusion_matrix_and_tally(split, settings):
    log_sum = np.log(np.exp(3) + CLASSES - 1)
    for example, confusion, tally in score_images(
        split, batch_size=3, settings=settings
    ):
        image, label = IMAGES[int(example.id.removeprefix("image_"))]
        np.testing.assert_array_equal(confusion, count_image(image, label))
        assert confusion.dtype == np.int64
        pixels, correct = confusion.sum(), np.trace(confusion)
        np.testing.assert_allclose(
            tally.nll, [pixels * log_sum - 3 * correct], rtol=1e-5
        )
        assert tally.nll.dtype == np.float64
        assert (tally.count.sum(), tally.correct.sum()) == (pixels, correct)
        assert tally.count.dtype == np.int64


def evaluate(split, *, batch_size, settings):
    return evaluate_split(
        {},
        split,
        segmenter=RedIsTheClass(),
        batch_size=batch_size,
        num_workers=0,
        settings=settings,
        temperatures=(1.0,),
    )


def test_a_split_is_scored_like_its_batches(split):
    images = evaluate(split, batch_size=3, settings=DEFAULT_SETTINGS)
    expected = score_images(split, batch_size=mesh.round_up(3, mesh.local_mesh()))
    for scored, like in zip(images, expected, strict=True):
        assert scored.predicted.id == like.predicted.id
        np.testing.assert_array_equal(scored.confusion, like.confusion)


def test_images_that_run_in_windows_do_not_wait_for_a_batch(split, monkeypatch):
    expected = {
        scored.predicted.id: scored
        for scored in score_images(split, batch_size=8, settings=WINDOWS)
    }
    sizes = []
    score_batch = batch_scores.score_batch
    monkeypatch.setattr(
        batch_scores,
        "score_batch",
        lambda variables, batch, **options: (
            sizes.append(len(batch["id"])) or score_batch(variables, batch, **options)
        ),
    )
    for scored in evaluate(split, batch_size=64, settings=WINDOWS):
        like = expected.pop(scored.predicted.id)
        np.testing.assert_array_equal(scored.confusion, like.confusion)
        np.testing.assert_array_equal(scored.tally.nll, like.tally.nll)
    assert not expected and set(sizes) == {mesh.local_mesh().size}


def test_the_images_of_a_batch_are_yielded_after_the_next_batch_is_sent(split):
    """Otherwise the device would wait while the host handles the images."""
    events = []

    def requested(batches):
        for batch in batches:
            events.append("sent")
            yield batch

    one_size = [i for i, size in enumerate(SIZES) if size == (40, 30)]
    records = [split.examples[i] for i in one_size]
    batches = pipeline.eval_batches(
        dataclasses.replace(split, examples=records),
        batch_size=1,
        num_workers=0,
        process_index=0,
        process_count=1,
    )
    images = evaluate_batches(
        {},
        requested(batches),
        segmenter=RedIsTheClass(),
        num_classes=CLASSES,
        settings=DEFAULT_SETTINGS,
        temperatures=(1.0,),
        devices=mesh.local_mesh(),
    )
    for _ in images:
        events.append("yielded")
    assert events == ["sent", "sent", "yielded", "sent", "yielded", "yielded"]


def test_the_shares_of_the_processes_add_up(split, expected):
    shares = [run(split, batch_size=3, process=(i, 3))[0] for i in range(3)]
    np.testing.assert_array_equal(sum(s.confusion for s in shares), expected)
    assert [s.images for s in shares] == [3, 3, 2]


def test_the_likelihood_is_the_mean_over_scored_pixels(split):
    sums, _ = run(split, batch_size=3)
    log_sum = np.log(np.exp(3) + CLASSES - 1)
    right, scored = np.trace(sums.confusion), sums.confusion.sum()
    expected = right * (log_sum - 3) + (scored - right) * log_sum
    np.testing.assert_allclose(sums.tally.nll, [expected], rtol=1e-5)
    assert sums.tally.count.sum() == scored


def test_windows_and_flips_count_each_pixel_once(split, expected):
    sums, examples = run(split, batch_size=3, settings=WINDOWS)
    np.testing.assert_array_equal(sums.confusion, expected)
    assert len(examples) == len(IMAGES)


class FarFromTheTruth(nn.Module):
    """Predict class 0 with logits that leave class 1 a probability of exp(-150)."""

    @nn.compact
    def __call__(self, image, *, train):
        logits = jnp.array([0.0, -150.0])[None, None, None]
        return jnp.broadcast_to(logits, (*image.shape[:3], 2))


@pytest.mark.parametrize(
    "settings", [DEFAULT_SETTINGS, WINDOWS], ids=["whole", "windows"]
)
def test_the_likelihood_is_not_clipped(settings):
    label = np.ones((40, 50), np.uint8)
    record = {
        "id": "far",
        "image": codec.encode_image(np.zeros((40, 50, 3), np.uint8)),
        "label": codec.encode_label(label),
    }
    names, palette = ("near", "far"), np.zeros((2, 3), np.uint8)
    images = evaluate_split(
        {},
        Split("tiny", "val", [record], names, palette),
        segmenter=FarFromTheTruth(),
        batch_size=1,
        num_workers=0,
        settings=settings,
        temperatures=(0.5, 1.0, 2.0),
    )
    (scored,) = images
    nats = np.array([300, 150, 75]) * label.size
    np.testing.assert_allclose(scored.tally.nll, nats, rtol=1e-5)
    # The fitted temperature follows from these sums, so it is the same too.
    np.testing.assert_allclose(scored.tally.slope, 150 * label.size, rtol=1e-5)


def test_a_network_with_another_number_of_classes_is_refused(split):
    class TwoClasses(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            return jnp.zeros((*image.shape[:3], 2))

    batches = pipeline.eval_batches(
        split, batch_size=1, num_workers=0, process_index=0, process_count=1
    )
    images = evaluate_batches(
        {},
        batches,
        segmenter=TwoClasses(),
        num_classes=CLASSES,
        settings=DEFAULT_SETTINGS,
        temperatures=(1.0,),
        devices=mesh.local_mesh(),
    )
    with pytest.raises(ValueError, match="predicts 2 classes, but the dataset has 21"):
        next(images)
