"""The IoU of VOCevalseg.m, in cases where implementations differ."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import mesh
from tempseg_jax.data import codec, pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.evaluation import metrics
from tempseg_jax.evaluation.evaluator import Sums, evaluate_batches
from tempseg_jax.inference.settings import DEFAULT_SETTINGS, InferenceSettings
from tempseg_jax.types import IGNORE_LABEL

K = 4


class Colors(nn.Module):
    """A segmenter whose class is the quarter of the range that a red value is in."""

    num_classes: int = K

    def __call__(self, image, *, train):
        centers = jnp.arange(K)[None, None, None] * 64.0 + 31.5
        return -jnp.square(image[..., :1].astype(jnp.float32) - centers) / 2000


def make_split(shapes, *, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    records, truth = [], []
    for i, (h, w) in enumerate(shapes):
        image = rng.integers(0, 256, (h, w, 3), np.uint8)
        label = rng.integers(0, K, (h, w)).astype(np.uint8)
        label[rng.random((h, w)) < 0.3] = IGNORE_LABEL
        if labels is not None:
            label[:] = labels[i]
        truth.append((image, label))
        record = {"id": f"r{i}", "image": codec.encode_image(image)}
        records.append(record | {"label": codec.encode_label(label)})
    sizes = {shape: shapes.count(shape) for shape in shapes}
    names, palette = tuple("abcd"), np.zeros((K, 3), np.uint8)
    return Split("tiny", "val", records, names, palette, sizes=sizes), truth


def run(split, settings=DEFAULT_SETTINGS, temperatures=(1.0, 0.5), batch_size=2):
    sums = Sums.zeros(num_classes=K, num_temperatures=len(temperatures))
    for scored in evaluate_batches(
        {},
        pipeline.eval_batches(
            split,
            batch_size=batch_size,
            num_workers=0,
            process_index=0,
            process_count=1,
        ),
        segmenter=Colors(),
        num_classes=K,
        settings=settings,
        temperatures=temperatures,
        devices=mesh.local_mesh(),
    ):
        sums = sums.add(scored)
    return sums


def voc_eval_seg(truth):
    """Return VOCevalseg.m's confusion matrix over all images, and its mean IoU."""
    counts = np.zeros((K, K), int)
    for image, label in truth:
        for true, red in zip(label.ravel(), image[..., 0].ravel(), strict=True):
            if true != IGNORE_LABEL:
                counts[true, int(red) // 64] += 1
    accuracies = []
    for j in range(K):
        gt, res = counts[j].sum(), counts[:, j].sum()
        if gt + res - counts[j, j]:
            accuracies.append(counts[j, j] / (gt + res - counts[j, j]))
    return counts, np.mean(accuracies)


CASES = {
    "several_sizes": {"shapes": [(40, 50), (60, 130), (40, 50), (33, 90), (40, 50)]},
    "all_void": {"shapes": [(20, 20)], "labels": [IGNORE_LABEL]},
    "absent_classes": {"shapes": [(20, 30), (20, 30)], "labels": [0, 0]},
    "one_pixel": {"shapes": [(1, 1)], "labels": [2]},
}
WINDOWS = InferenceSettings(window=32, stride=20, scales=(1.0,), flip=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "settings", [DEFAULT_SETTINGS, WINDOWS], ids=["whole", "windows"]
)
def test_the_confusion_matrix_is_vocs_for_whole_images_and_windows(name, settings):
    split, truth = make_split(**CASES[name])
    sums = run(split, settings)
    if name == "all_void":
        assert not sums.confusion.any()
        assert np.isnan(metrics.scores(sums.confusion)["miou"])
        return
    counts, miou = voc_eval_seg(truth)
    np.testing.assert_array_equal(sums.confusion, counts)
    assert metrics.scores(sums.confusion)["miou"] == pytest.approx(miou)


def test_sums_do_not_depend_on_windows_or_batch_size():
    split, _ = make_split(**CASES["several_sizes"])
    whole = run(split)
    for other in (run(split, WINDOWS), run(split, batch_size=3)):
        np.testing.assert_array_equal(
            other.tally.count.sum(axis=1), [whole.confusion.sum()] * 2
        )
        for a, b in zip(whole.tally, other.tally, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
