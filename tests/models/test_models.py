import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import SEGMENTERS, DCGANDiscriminator, layers, ops
from tempseg_jax.models.flops import count_parameters
from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION
from tests.support import make_segmenter


def parameters_of(module, shape, dtype):
    """Return the parameters of a network as shapes, without allocating them."""
    init = functools.partial(module.init, train=False)
    image = jax.ShapeDtypeStruct(shape, dtype)
    return jax.eval_shape(init, jax.random.key(0), image)["params"]


@pytest.mark.parametrize(
    "name, num_classes, parameters",
    [
        ("fcn8s", 21, 134_475_647),
        ("fcn8s", 19, 134_445_433),
        ("resnet50", 21, 23_577_621),
        ("resnet50", 19, 23_573_523),
    ],
)
def test_segmenters_have_the_parameters_of_table_4(name, num_classes, parameters):
    module = make_segmenter(name, num_classes=num_classes, width=1.0)
    shapes = parameters_of(module, (1, 416, 416, 3), jnp.uint8)
    assert count_parameters(shapes) == parameters


@pytest.mark.parametrize("num_classes, parameters", [(21, 2_785_089), (19, 2_783_041)])
def test_the_discriminator_has_the_parameters_of_table_4(num_classes, parameters):
    module = DCGANDiscriminator(jnp.float32)
    shapes = parameters_of(module, (1, 416, 416, num_classes), jnp.float32)
    assert count_parameters(shapes) == parameters


def test_the_discriminator_maps_416_pixels_to_13():
    module = DCGANDiscriminator(jnp.float32)
    p = jax.ShapeDtypeStruct((2, 416, 416, 21), jnp.float32)
    scores, _ = jax.eval_shape(
        lambda key, x: module.init_with_output(key, x, train=False),
        jax.random.key(0),
        p,
    )
    assert scores.shape == (2, 13, 13, 1)


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("size", [(32, 32), (33, 95), (1, 1), (480, 360)])
def test_any_input_size_gives_logits_of_that_size(name, size):
    module = make_segmenter(name)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)
    logits, _ = jax.eval_shape(
        lambda key, x: module.init_with_output(key, x, train=False),
        jax.random.key(0),
        image,
    )
    assert logits.shape == (2, *size, 5)
    assert logits.dtype == jnp.float32


def test_padding_is_the_mean_color_at_the_bottom_and_the_right():
    image = np.random.default_rng(0).integers(0, 256, (2, 33, 60, 3)).astype(np.uint8)
    x = layers.normalize_and_pad(
        jnp.array(image), CAFFE, multiple=32, dtype=jnp.float32
    )
    assert x.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(x[:, 33:], 0)
    np.testing.assert_array_equal(x[:, :, 60:], 0)
    np.testing.assert_allclose(x[:, :33, :60], CAFFE(jnp.array(image)))


def test_caffe_preprocessing_is_bgr_minus_the_mean_without_division():
    rgb = jnp.array([[[[10, 20, 30]]]], jnp.uint8)
    expected = [30 - 103.939, 20 - 116.779, 10 - 123.68]
    np.testing.assert_allclose(CAFFE(rgb)[0, 0, 0], expected, rtol=1e-6)


def test_torchvision_preprocessing_is_rgb_in_standard_deviations():
    rgb = jnp.array([[[[255, 0, 51]]]], jnp.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(TORCHVISION(rgb)[0, 0, 0], expected, rtol=1e-5)


def test_the_bilinear_kernel_is_that_of_long_et_al():
    even = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(layers.bilinear_kernel(4), np.outer(even, even))
    odd = np.array([0.5, 1.0, 0.5])
    np.testing.assert_allclose(layers.bilinear_kernel(3), np.outer(odd, odd))
    assert (
        layers.bilinear_kernel(16).sum() == 64
    )  # 8 x 8: a constant image stays constant


def test_bilinear_upsampling_interpolates_between_pixel_centers():
    x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
    y = layers.upsample_bilinear(x, factor=2)
    np.testing.assert_allclose(y[0, 0, :, 0], [0, 1, 3, 5, 7, 8], atol=1e-6)
    np.testing.assert_array_equal(y[0, 0], y[0, 1])


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("factor", [2, 32])
def test_bilinear_upsampling_is_jaxs_resizing_in_all_forms(factor, platform):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
    shape = (2, 3 * factor, 5 * factor, 4)
    weights = jnp.array(rng.normal(size=shape), jnp.float32)

    def upsample(x):
        with ops.forms_of(platform):
            return layers.upsample_bilinear(x, factor=factor)

    def resize(x):
        return jax.image.resize(x, shape, method="bilinear")

    np.testing.assert_allclose(upsample(x), resize(x), atol=1e-5)
    np.testing.assert_allclose(
        jax.vjp(upsample, x)[1](weights)[0],
        jax.vjp(resize, x)[1](weights)[0],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("stride", [2, 8])
def test_learned_upsampling_equals_a_transposed_convolution_and_its_gradients(
    stride,
):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, 3, 5, 4)), jnp.float32)
    kernel = jnp.array(rng.normal(size=(2 * stride, 2 * stride, 4, 4)), jnp.float32)
    weights = jnp.array(rng.normal(size=(2, 3 * stride, 5 * stride, 4)), jnp.float32)
    module = layers.LearnedUpsample(stride=stride, dtype=jnp.float32)

    def sub_pixel(x, kernel):
        return module.apply({"params": {"kernel": kernel}}, x)

    def transposed(x, kernel):
        # As Keras and PyTorch define it: the gradient of a convolution.
        return jax.lax.conv_transpose(
            x,
            kernel.swapaxes(2, 3),
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            transpose_kernel=True,
        )

    def values_and_gradients(f):
        def weighted(x, kernel):
            y = f(x, kernel)
            return jnp.sum(weights * y), y

        return jax.jit(jax.grad(weighted, argnums=(0, 1), has_aux=True))(x, kernel)

    (dx, dk), y = values_and_gradients(sub_pixel)
    (expected_dx, expected_dk), expected_y = values_and_gradients(transposed)
    np.testing.assert_allclose(y, expected_y, atol=1e-4)
    np.testing.assert_allclose(dx, expected_dx, atol=2e-3)
    np.testing.assert_allclose(dk, expected_dk, atol=1e-3)


def test_learned_upsampling_starts_as_bilinear_upsampling_of_each_class():
    module = layers.LearnedUpsample(stride=8, dtype=jnp.float32)
    x = jnp.arange(4.0).reshape(1, 2, 2, 1) * jnp.array([1.0, 10.0]).reshape(1, 1, 1, 2)
    y, variables = module.init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (16, 16, 2, 2)
    np.testing.assert_array_equal(kernel[..., 0, 1], 0)
    np.testing.assert_array_equal(kernel[..., 1, 0], 0)
    inside = np.s_[:, 4:-4, 4:-4]  # nearer the border it interpolates with zeros
    expected = layers.upsample_bilinear(x, factor=8)
    np.testing.assert_allclose(y[inside], expected[inside], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def fcn():
    module = make_segmenter("fcn8s", width=0.1)
    init = functools.partial(module.init, train=False)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    return module, jax.jit(init)(jax.random.key(0), image)


def test_logits_are_zero_before_training(fcn):
    module, variables = fcn
    rng = np.random.default_rng(0)
    image = jnp.array(rng.integers(0, 256, (1, 32, 40, 3)), jnp.uint8)
    np.testing.assert_array_equal(module.apply(variables, image, train=False), 0)


def test_convolutions_before_relu_have_he_initialization(fcn):
    backbone = fcn[1]["params"]["backbone"]
    for kernel in (
        backbone["block4"]["conv2"]["kernel"],
        backbone["fc6"]["kernel"],
        backbone["fc7"]["kernel"],
    ):
        fan_in = np.prod(kernel.shape[:-1])
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_in), rtol=0.03)
        assert abs(np.mean(kernel)) < 0.01 * np.std(kernel) + 1e-4


def test_the_discriminator_has_the_initialization_of_dcgan():
    module = DCGANDiscriminator(jnp.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), jnp.zeros((1, 32, 32, 5)))
    for i in range(1, 6):
        layer = variables["params"][f"conv{i}"]
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.02, rtol=0.05)
        np.testing.assert_array_equal(layer["bias"], 0)


def test_dropout_changes_the_logits_in_training_but_not_in_evaluation(fcn):
    module, variables = fcn
    scores = variables["params"]["score_fc7"]
    scores = {**scores, "kernel": jnp.ones_like(scores["kernel"])}
    variables = {"params": {**variables["params"], "score_fc7": scores}}
    image = jnp.full((1, 32, 32, 3), 200, jnp.uint8)

    def logits(key, *, train):
        rngs = {"dropout": jax.random.key(key)}
        return module.apply(variables, image, train=train, rngs=rngs)

    np.testing.assert_array_equal(logits(1, train=True), logits(1, train=True))
    assert np.any(logits(1, train=True) != logits(2, train=True))
    np.testing.assert_array_equal(logits(1, train=False), logits(2, train=False))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_remat_recomputes_blocks_and_keeps_the_parameters(name):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)

    def program_and_parameters(remat):
        module = make_segmenter(name, remat=remat)
        init = functools.partial(module.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), image)

        def forward(variables, image):
            rngs = {"dropout": jax.random.key(0)}
            kwargs = dict(train=True, rngs=rngs, mutable=["batch_stats"])
            return module.apply(variables, image, **kwargs)[0]

        return str(jax.make_jaxpr(forward)(variables, image)), variables

    plain, variables = program_and_parameters(False)
    remat, same_variables = program_and_parameters(True)
    assert "remat" not in plain
    assert "remat" in remat
    assert variables == same_variables
