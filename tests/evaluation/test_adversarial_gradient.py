"""The adversary's part of the segmenter's gradient, at the logits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tempseg_jax import steps
from tempseg_jax.evaluation.adversarial_gradient import adversarial_gradient
from tempseg_jax.types import IGNORE_LABEL
from tests.support import make_objective, make_state
from tests.test_head_rate import HYPER, Discriminator

CLASSES = 3


class Logits(nn.Module):
    """A segmenter whose parameters are its logits."""

    @nn.compact
    def __call__(self, image, *, train):
        shape = (*image.shape[:3], CLASSES)
        return self.param("logits", nn.initializers.normal(), shape)


def make_batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, (1, 8, 8)).astype(np.uint8)
    label[:, :2] = IGNORE_LABEL
    return {"image": jnp.zeros((1, 8, 8, 3), jnp.uint8), "label": jnp.array(label)}


def logit_gradient(state, objective, alpha):
    """Return the gradient of L_G that a training step computes."""
    hyper = HYPER._replace(temperature_seg=0.5, temperature_adv=0.7, alpha=alpha)
    (gradients, _), _, _ = steps.compute_gradients(
        state,
        make_batch(),
        hyper,
        key=jax.random.key(0),
        seg_weight=1.0,
        objective=objective,
    )
    return np.asarray(gradients.grads["logits"], np.float64)


@pytest.mark.parametrize("alpha", [0.3, 30.0])
def test_share_and_cosine_are_those_of_the_gradients_of_a_step(alpha):
    objective = make_objective(Logits(), Discriminator())
    state = make_state(Logits(), Discriminator(), size=8, num_classes=CLASSES)
    hyper = HYPER._replace(temperature_seg=0.5, temperature_adv=0.7, alpha=alpha)
    result = adversarial_gradient(
        state, make_batch(), hyper, images=1, objective=objective
    )
    seg = logit_gradient(state, objective, 0.0)
    both = logit_gradient(state, objective, alpha)
    adv, norm = both - seg, np.linalg.norm
    np.testing.assert_allclose(result["adv_share"], norm(adv) / norm(both), rtol=1e-3)
    cosine = np.vdot(adv, seg) / norm(adv) / norm(seg)
    np.testing.assert_allclose(result["adv_cosine"], cosine, rtol=1e-3, atol=1e-4)


def test_a_small_gradient_in_float16_is_not_lost():
    """As with D on whole images, where each score has a gradient below 6e-8."""

    class Half(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(1, (1, 1), dtype=jnp.float16)(x.astype(jnp.float16))
            return x.astype(jnp.float32) * 1e-6

    shares = []
    for loss_scale in (None, 2.0**15):
        state = make_state(
            *(Logits(), Half()), size=8, num_classes=CLASSES, loss_scale=loss_scale
        )
        result = adversarial_gradient(
            state,
            make_batch(),
            HYPER._replace(alpha=0.01),
            images=1,
            objective=make_objective(Logits(), Half()),
        )
        shares.append(float(result["adv_share"]))
    assert shares[0] == 0 and shares[1] > 0


def test_without_a_gradient_both_are_zero():
    objective = make_objective(Logits(), Discriminator())
    state = make_state(Logits(), Discriminator(), size=8, num_classes=CLASSES)
    batch = make_batch() | {"label": jnp.full((1, 8, 8), IGNORE_LABEL, jnp.uint8)}
    hyper = HYPER._replace(alpha=0.0)
    result = adversarial_gradient(state, batch, hyper, images=1, objective=objective)
    assert result == {"adv_share": 0, "adv_cosine": 0}
