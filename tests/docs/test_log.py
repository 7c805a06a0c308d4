"""The page on evaluation lists every key of the log."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp

from tempseg_jax import loop, steps
from tempseg_jax.objective.adversaries import ADVERSARIES, gradient_penalty
from tests.support import ROOT, make_hyper, make_objective, make_state
from tests.test_gradient_accumulation import CLASSES, ManyOutputs


class Pixelwise(nn.Module):
    """A discriminator with a score for each pixel."""

    @nn.compact
    def __call__(self, probabilities, *, train):
        return nn.Conv(1, (1, 1))(probabilities)


def metrics_of_all_terms():
    """Return the names of the metrics of a float16 step with all terms."""
    pixels = jax.ShapeDtypeStruct((2, 8, 8), jnp.uint8)
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8)
    batch = {"image": images, "label": pixels, "unlabeled_image": images}
    batch["unlabeled_visible"] = jax.ShapeDtypeStruct((2, 8, 8), jnp.bool_)
    state = make_state(
        ManyOutputs(), Pixelwise(), size=8, num_classes=CLASSES, loss_scale=2.0**15
    )
    objective = make_objective(
        ManyOutputs(),
        Pixelwise(),
        adversary=ADVERSARIES["dcgan"]._replace(penalty=gradient_penalty),
        teacher=ManyOutputs(),
        pairwise=True,
        auxiliary=True,
        unlabeled_adversarial=True,
        self_training=True,
    )
    hyper = make_hyper(teacher={"params": state.segmenter.params})
    _, metrics = jax.eval_shape(
        lambda state, batch: steps.train_step(state, batch, hyper, objective=objective),
        state,
        batch,
    )
    return metrics


def test_every_metric_of_a_training_step_is_listed():
    page = (ROOT / "docs" / "inference.md").read_text()
    section = page.partition("## The log\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(?:train/)?(\w+)`", section))
    metrics = metrics_of_all_terms()
    meter = loop._Meter()
    meter.next_batch(iter([{"image": jnp.zeros((1, 8, 8, 3), jnp.uint8)}]))
    meter.add({name: jnp.zeros(()) for name in metrics})
    assert {"loss_semi", "loss_pairwise", "loss_aux", "penalty"} <= metrics.keys()
    assert meter.means().keys() - listed == set()
