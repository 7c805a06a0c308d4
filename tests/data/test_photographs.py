"""Real weights over real photographs: each convolution against its BatchNorm's mean.

A BatchNorm's moving mean is what its convolution gave, on average, over ImageNet. With
another preprocessing, or a tensor in another's place, the means differ. (They hardly
feel a kernel's rows and columns exchanged: the golden activations do.)
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax.models import SEGMENTERS
from tempseg_jax.models.weights.pretrained import load_pretrained, preprocessing_of
from tests.support import TEST_DATA

PARTIAL = TEST_DATA / "weights/resnet50_keras_imagenet_notop_partial.h5"
CROP = 224  # pixels, of photographs reduced to a shorter side of 256: as on ImageNet


def _photographs(folder, count):
    """Return evenly chosen photographs, reduced, as one uint8 RGB batch."""
    paths = sorted((TEST_DATA / folder).glob("*.[jp][pn]g"))
    if len(paths) < count:
        pytest.skip(f"{folder} is not here")
    crops = []
    for path in paths[:: len(paths) // count][:count]:
        image = cv2.imread(str(path))[..., ::-1]
        scale = 256 / min(image.shape[:2])
        image = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        top, left = (image.shape[0] - CROP) // 2, (image.shape[1] - CROP) // 2
        crops.append(image[top : top + CROP, left : left + CROP])
    return np.stack(crops)


@pytest.fixture(scope="module")
def correlations():
    """Return a function: images, train -> {convolution: correlation over channels}."""
    if not PARTIAL.exists():
        pytest.skip(f"{PARTIAL.name} is not here")
    module = SEGMENTERS["resnet50"](
        num_classes=2,
        preprocessing=preprocessing_of(str(PARTIAL)),
        width=1.0,
        dtype=jnp.dtype("float32"),
        remat=False,
    )
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    init = jax.eval_shape(
        lambda k: module.init(k, image, train=False), jax.random.key(0)
    )
    fresh = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), init)
    variables, _ = load_pretrained(
        fresh, str(PARTIAL), segmenter_name="resnet50", missing=("conv5",)
    )
    stored = flatten_dict(variables["batch_stats"], sep="/")

    def means(images, *, train):
        state = module.apply(
            variables,
            images,
            train=train,
            capture_intermediates=lambda layer, _: str(layer.name).startswith("conv"),
            mutable=["intermediates", "batch_stats"],
        )[1]
        outputs = flatten_dict(state["intermediates"], sep="/")
        return {name: jnp.mean(x, (0, 1, 2)) for name, (x, *_) in outputs.items()}

    jitted = jax.jit(means, static_argnames="train")

    def correlate(images, *, train):
        found = {}
        for name, mean in jitted(images, train=train).items():
            layer = name.removesuffix("/__call__")
            # conv1's mean is that of the pixels, which the preprocessing makes about 0.
            if layer != "conv1" and not layer.startswith("stage5"):
                moving_mean = stored[layer.replace("conv", "bn") + "/mean"]
                found[layer] = float(np.corrcoef(mean, moving_mean)[0, 1])
        return found

    return correlate


def test_means_agree_through_conv4_and_less_with_the_channels_reversed(correlations):
    images = _photographs("VOCdevkit/VOC2012/JPEGImages", 24)
    right = correlations(images, train=False)
    wrong = correlations(images[..., ::-1], train=False)
    assert len(right) == 42
    assert min(right.values()) > 0.9, right
    assert np.mean(list(wrong.values())) < np.mean(list(right.values()))
    assert min(wrong.values()) < 0.75


def test_means_agree_on_street_scenes_layer_by_layer(correlations):
    # All of CamVid is one gray street: its means are not ImageNet's, and through layers
    # normalized by ImageNet's statistics the difference grows. Normalized by the batch,
    # each layer is judged alone (and hardly feels the order of the channels).
    found = correlations(_photographs("camvid/train", 8), train=True)
    assert min(found.values()) > 0.98, found
