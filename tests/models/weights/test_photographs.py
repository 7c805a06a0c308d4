"""Compare real weights on real photographs with the moving means of BatchNorm.

The moving mean of a BatchNorm is the mean output of its convolution over ImageNet. With
another preprocessing, or with two tensors exchanged, the means differ. They change
little if a kernel's rows and columns are exchanged; the golden activations detect that.
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax.models import SEGMENTERS
from tempseg_jax.models.weights.catalog import preprocessing_of
from tempseg_jax.models.weights.pretrained import load_pretrained
from tests.support import TEST_DATA

PARTIAL = TEST_DATA / "weights/resnet50_keras_imagenet_notop_partial.h5"
CROP = 224  # pixels, after resizing the shorter side to 256, as on ImageNet


def _photographs(folder, count):
    """Return every n-th photograph, resized and cropped, as one uint8 RGB batch."""
    paths = sorted((TEST_DATA / folder).glob("*.[jp][pn]g"))
    if len(paths) < count:
        pytest.skip(f"{TEST_DATA / folder} does not exist")
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
    """Return a function from images and train to {layer: correlation over channels}."""
    if not PARTIAL.exists():
        pytest.skip(f"{PARTIAL} does not exist")
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
        del outputs["features"]  # sown for distillation; no convolution
        return {name: jnp.mean(x, (0, 1, 2)) for name, (x, *_) in outputs.items()}

    jitted = jax.jit(means, static_argnames="train")

    def correlate(images, *, train):
        correlation = {}
        for name, mean in jitted(images, train=train).items():
            layer = name.removesuffix("/__call__")
            # The mean of conv1 depends on the mean pixel, which preprocessing makes 0.
            if layer != "conv1" and not layer.startswith("stage5"):
                moving_mean = stored[layer.replace("conv", "bn") + "/mean"]
                correlation[layer] = float(np.corrcoef(mean, moving_mean)[0, 1])
        return correlation

    return correlate


@pytest.mark.slow
def test_means_agree_up_to_conv4_and_less_with_reversed_channels(correlations):
    images = _photographs("VOCdevkit/VOC2012/JPEGImages", 24)
    rgb = correlations(images, train=False)
    bgr = correlations(images[..., ::-1], train=False)
    assert len(rgb) == 42
    assert min(rgb.values()) > 0.9, rgb
    assert np.mean(list(bgr.values())) < np.mean(list(rgb.values()))
    assert min(bgr.values()) < 0.75


@pytest.mark.slow
def test_means_agree_on_street_scenes_layer_by_layer(correlations):
    # The images of CamVid are alike: their means differ from those of ImageNet, and the
    # difference grows from layer to layer if ImageNet's statistics normalize. With the
    # statistics of the batch, each layer is compared independently of the others, but
    # the order of the channels has little effect.
    correlation = correlations(_photographs("camvid/train", 8), train=True)
    assert min(correlation.values()) > 0.98, correlation
