import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax.models import SEGMENTERS, Discriminator, layers, ops
from tempseg_jax.models.preprocessing import CAFFE, TORCHVISION, Preprocessing
from tests.support import make_segmenter

LEFT_ALONE = Preprocessing("RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1e-5)


def count(module, shape, dtype):
    """Parameters of a network, of which none is ever allocated."""
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(
        init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype)
    )
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


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
    assert count(module, (1, 416, 416, 3), jnp.uint8) == parameters


@pytest.mark.parametrize("num_classes, parameters", [(21, 2_785_089), (19, 2_783_041)])
def test_the_discriminator_has_the_parameters_of_table_4(num_classes, parameters):
    module = Discriminator(jnp.float32)
    assert count(module, (1, 416, 416, num_classes), jnp.float32) == parameters


def test_the_discriminator_maps_416_pixels_to_13():
    module = Discriminator(jnp.float32)
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


def test_padding_is_the_mean_at_the_bottom_and_the_right():
    image = np.random.default_rng(0).integers(0, 256, (2, 33, 60, 3)).astype(np.uint8)
    x = layers.normalize_and_pad(jnp.array(image), CAFFE, dtype=jnp.float32)
    assert x.shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(x[:, 33:], 0)
    np.testing.assert_array_equal(x[:, :, 60:], 0)
    np.testing.assert_allclose(x[:, :33, :60], CAFFE(jnp.array(image)))


def test_caffe_networks_expect_bgr_minus_the_mean_undivided():
    rgb = jnp.array([[[[10, 20, 30]]]], jnp.uint8)
    expected = [30 - 103.939, 20 - 116.779, 10 - 123.68]
    np.testing.assert_allclose(CAFFE(rgb)[0, 0, 0], expected, rtol=1e-6)


def test_torchvision_networks_expect_rgb_in_standard_deviations():
    rgb = jnp.array([[[[255, 0, 51]]]], jnp.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(TORCHVISION(rgb)[0, 0, 0], expected, rtol=1e-5)


def test_the_bilinear_kernel_is_the_published_one():
    even = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_allclose(layers.bilinear_kernel(4), np.outer(even, even))
    odd = np.array([0.5, 1.0, 0.5])
    np.testing.assert_allclose(layers.bilinear_kernel(3), np.outer(odd, odd))
    assert layers.bilinear_kernel(16).sum() == 64  # 8 x 8: a constant stays one


def test_bilinear_enlargement_interpolates_between_pixel_centres():
    x = jnp.array([0.0, 4.0, 8.0]).reshape(1, 1, 3, 1)
    y = layers.upsample_bilinear(x, factor=2)
    np.testing.assert_allclose(y[0, 0, :, 0], [0, 1, 3, 5, 7, 8], atol=1e-6)
    np.testing.assert_array_equal(y[0, 0], y[0, 1])


@pytest.mark.parametrize("stride", [2, 8])
def test_learned_upsampling_is_a_transposed_convolution_in_values_and_gradients(
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
        # As keras and PyTorch define it: the gradient of a convolution.
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


def test_learned_upsampling_starts_as_bilinear_of_each_class_alone():
    module = layers.LearnedUpsample(stride=8, dtype=jnp.float32)
    x = jnp.arange(4.0).reshape(1, 2, 2, 1) * jnp.array([1.0, 10.0]).reshape(1, 1, 1, 2)
    y, variables = module.init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (16, 16, 2, 2)
    np.testing.assert_array_equal(kernel[..., 0, 1], 0)
    np.testing.assert_array_equal(kernel[..., 1, 0], 0)
    inside = np.s_[:, 4:-4, 4:-4]  # further out zeros, not edges, are interpolated
    expected = layers.upsample_bilinear(x, factor=8)
    np.testing.assert_allclose(y[inside], expected[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "ours, library",
    [
        (ops.max_pool_2x2, lambda x: nn.max_pool(x, (2, 2), (2, 2))),
        (
            ops.max_pool_3x3,
            lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))),
        ),
    ],
    ids=["2x2", "3x3"],
)
def test_pooling_is_the_librarys_in_values_and_gradients(ours, library):
    rng = np.random.default_rng(0)
    # A permutation: no two values are equal, so that each maximum is at one place.
    x = jnp.array(rng.permutation(2 * 6 * 8 * 3).reshape(2, 6, 8, 3), jnp.float32)
    x = x - 200  # also negative: a border of zeros would win
    weights = jnp.array(rng.normal(size=(2, 3, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(ours(x), library(x))
    for found, expected in zip(
        jax.vjp(ours, x)[1](weights), jax.vjp(library, x)[1](weights), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 40])  # fewer and more than there are pixels
@pytest.mark.parametrize(
    ("kernel_size", "stride", "use_bias"),
    [
        (1, 1, True),
        (1, 2, False),
        (3, 1, True),
        (7, 1, True),
        (3, 2, False),
        (7, 2, True),
    ],
)
def test_same_conv_is_the_librarys_in_values_and_gradients(
    channels, kernel_size, stride, use_bias
):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, 4, 6, channels)), jnp.float32)
    shape = (2, 4 // stride, 6 // stride, 6)
    weights = jnp.array(rng.normal(size=shape), jnp.float32)
    ours = ops.SameConv(6, kernel_size, jnp.float32, stride, use_bias)
    library = nn.Conv(
        6,
        (kernel_size, kernel_size),
        strides=stride,
        padding=kernel_size // 2,
        use_bias=use_bias,
    )
    variables = ours.init(jax.random.key(0), x)
    if use_bias:
        variables = {"params": {**variables["params"], "bias": jnp.arange(6.0)}}

    assert_same_values_and_gradients(ours, library, variables, x, weights)


@pytest.mark.parametrize("size", [(4, 6), (6, 2), (5, 6), (1, 1)])
def test_halving_conv_is_the_librarys_in_values_and_gradients(size):
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(2, *size, 3)), jnp.float32)
    shape = (2, -(-size[0] // 2), -(-size[1] // 2), 5)
    weights = jnp.array(rng.normal(size=shape), jnp.float32)
    ours, library = ops.HalvingConv(5, jnp.float32), nn.Conv(5, (4, 4), strides=2)
    variables = ours.init(jax.random.key(0), x)
    variables = {"params": {**variables["params"], "bias": jnp.arange(5.0)}}
    assert_same_values_and_gradients(ours, library, variables, x, weights)


def assert_same_values_and_gradients(ours, library, variables, x, weights):
    @functools.partial(jax.jit, static_argnums=0)
    def values_and_gradients(module):
        y, pullback = jax.vjp(module.apply, variables, x)
        return y, pullback(weights)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        values_and_gradients(ours),
        values_and_gradients(library),
    )


@pytest.fixture(scope="module")
def fcn():
    module = make_segmenter("fcn8s", width=0.1)
    init = functools.partial(module.init, train=False)
    image = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    return module, jax.jit(init)(jax.random.key(0), image)


def test_no_class_is_preferred_before_training(fcn):
    module, variables = fcn
    rng = np.random.default_rng(0)
    image = jnp.array(rng.integers(0, 256, (1, 32, 40, 3)), jnp.uint8)
    np.testing.assert_array_equal(module.apply(variables, image, train=False), 0)


def test_convolutions_before_relu_start_as_he_has_it(fcn):
    backbone = fcn[1]["params"]["backbone"]
    for kernel in (
        backbone["block4"]["conv2"]["kernel"],
        backbone["fc6"]["kernel"],
        backbone["fc7"]["kernel"],
    ):
        fan_in = np.prod(kernel.shape[:-1])
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_in), rtol=0.03)
        assert abs(np.mean(kernel)) < 0.01 * np.std(kernel) + 1e-4


def test_the_discriminator_starts_as_dcgan_has_it():
    module = Discriminator(jnp.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), jnp.zeros((1, 32, 32, 5)))
    for i in range(1, 6):
        layer = variables["params"][f"conv{i}"]
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.02, rtol=0.05)
        np.testing.assert_array_equal(layer["bias"], 0)


def test_dropout_acts_in_training_alone_and_where_fc6_and_fc7_end(fcn):
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
def test_blocks_are_recomputed_only_where_asked_and_of_the_same_parameters(name):
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
    saving, same_variables = program_and_parameters(True)
    assert "remat" not in plain
    assert "remat" in saving
    assert variables == same_variables
