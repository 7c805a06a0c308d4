"""Scores of a whole split, by a network that says the red value of each pixel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tempseg_jax import mesh
from tempseg_jax.data import codec, pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation.evaluator import evaluate
from tempseg_jax.inference import sliding_window
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
    """Images whose red values are right at two thirds of the scored pixels."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        label = rng.integers(0, CLASSES, (height, width)).astype(np.uint8)
        label[label == 4] = 5  # class 4 is nowhere
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


def run(split, *, batch_size, process=(0, 1), settings=sliding_window.WHOLE_IMAGE):
    """Return the sums and the examples of one process."""
    local, seen = mesh.local_mesh(), []
    sums = evaluate(
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
        place=lambda batch: mesh.split_batch(batch, local),
        devices=local.size,
        visit=seen.append,
    )
    return sums, seen


def count():
    """Count one pixel at a time."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for image, label in IMAGES:
        for truth, guess in zip(label.ravel(), image[..., 0].ravel(), strict=True):
            if truth != IGNORE_LABEL:
                confusion[truth, guess] += 1
    return confusion


@pytest.fixture(scope="module")
def expected():
    return count()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_image_counts_once_whatever_the_batch_size(split, expected, batch_size):
    sums, seen = run(split, batch_size=batch_size)
    np.testing.assert_array_equal(sums.confusion, expected)
    assert sums.images == len(IMAGES)
    assert sorted(example.id for example in seen) == [
        f"image_{i}" for i in range(len(IMAGES))
    ]


def test_examples_are_the_images_at_their_native_size(split):
    _, seen = run(split, batch_size=3)
    for example in seen:
        image, label = IMAGES[int(example.id.removeprefix("image_"))]
        np.testing.assert_array_equal(example.image, image)
        np.testing.assert_array_equal(example.label, label)
        np.testing.assert_array_equal(example.prediction, image[..., 0])


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


def test_windows_and_mirror_images_see_each_pixel_once_too(split, expected):
    settings = sliding_window.InferenceSettings(
        window=32, stride=20, scales=(1.0,), flip=True
    )
    sums, seen = run(split, batch_size=3, settings=settings)
    np.testing.assert_array_equal(sums.confusion, expected)
    assert len(seen) == len(IMAGES)


def test_a_network_of_other_classes_than_the_data_is_refused(split):
    class TwoClasses(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            return jnp.zeros((*image.shape[:3], 2))

    batches = pipeline.eval_batches(
        split, batch_size=1, num_workers=0, process_index=0, process_count=1
    )
    with pytest.raises((TypeCheckError, ValueError)):
        evaluate(
            {},
            batches,
            segmenter=TwoClasses(),
            num_classes=CLASSES,
            settings=sliding_window.WHOLE_IMAGE,
            temperatures=(1.0,),
            place=lambda batch: batch,
            devices=1,
            visit=lambda example: None,
        )
