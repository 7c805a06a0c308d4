"""The PyTorch peer trains the same networks with the same losses.

The tests are skipped without PyTorch, which is not a dependency of the project:
    pip install torch; python -m pytest tests/scripts/test_torch_peer.py
"""

import functools
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tempseg_jax import optim, steps, train_state
from tempseg_jax.models import DCGANDiscriminator
from tests.support import ROOT, make_hyper, make_objective, make_segmenter

torch = pytest.importorskip("torch", reason="PyTorch is not installed: no peer to test")
sys.path.insert(0, str(ROOT / "scripts/peers"))
torch_networks = pytest.importorskip("torch_networks")
torch_step = pytest.importorskip("torch_step")

NUM_CLASSES, SIZE, BATCH = 5, 64, 2


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (torch_networks.FCN8s, 134_475_647),
        (torch_networks.ResNet50, 23_577_621),
        (torch_networks.Discriminator, 2_785_089),
    ],
)
def test_the_networks_have_the_parameters_of_the_paper(build, count):
    with torch.device("meta"):  # no memory
        assert torch_networks.count_parameters(build(21)) == count


# At the paper's rate, a step of ResNet from random weights multiplies rounding errors.
@pytest.mark.timeout(900)  # FCN-8s has 134 million parameters
@pytest.mark.parametrize(("name", "rate"), [("fcn8s", 5e-3), ("resnet50", 1e-4)])
def test_two_steps_from_the_same_weights_have_the_same_losses(name, rate, monkeypatch):
    monkeypatch.setattr(torch_step, "LEARNING_RATE_G", rate)
    # Both draw dropout masks of their own, so dropout is left out.
    monkeypatch.setattr(nn, "Dropout", lambda *_, **__: lambda x: x)
    segmenter = make_segmenter(name, num_classes=NUM_CLASSES, width=1.0)
    discriminator = DCGANDiscriminator(jnp.float32)
    image = jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8)
    maps = jnp.zeros((1, SIZE, SIZE, NUM_CLASSES))
    variables_g, variables_d = weights(segmenter, image), weights(discriminator, maps)
    peers = (
        load(torch_networks.SEGMENTERS[name](NUM_CLASSES), variables_g),
        load(torch_networks.Discriminator(NUM_CLASSES), variables_d),
    )
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "label": rng.integers(0, NUM_CLASSES, (BATCH, SIZE, SIZE), np.uint8),
    }
    batch["label"][:, :8] = 255
    ours = our_losses(segmenter, discriminator, variables_g, variables_d, batch)
    theirs = peer_losses(*peers, batch)
    for own, other in zip(ours, theirs, strict=True):
        assert other.keys() == {"loss", "loss_seg", "loss_adv", "loss_d"}
        for key, value in other.items():
            assert own[key] == pytest.approx(value, rel=1e-3), key
    # The effect of the first update, which is the rate times the squared gradient norm.
    effect, expected = (each[1]["loss"] - each[0]["loss"] for each in (ours, theirs))
    assert abs(expected) > 0.01
    assert effect == pytest.approx(expected, rel=0.05)


def weights(network, example):
    """Return variables that are random everywhere, also in the score layers."""
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), example
    )
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            # Small residuals, without which ResNet multiplies rounding errors.
            small = path[-2].key == "bn3" and len(path) > 3
            return np.full(leaf.shape, 0.1 if small else 1.0, np.float32)
        variance = 2 / np.prod(leaf.shape[:-1]) if name == "kernel" else 0.01
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(variance**0.5)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def load(network, variables):
    """Copy Linen variables by name; every tensor of the network must be among them."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    names |= {"mean": "running_mean", "var": "running_var"}
    tensors = {}
    for collection in variables.values():
        for (*path, leaf), value in flatten_dict(collection).items():
            if value.ndim == 4:
                transposed = path[-1] == "upsample8"
                value = value.transpose((2, 3, 0, 1) if transposed else (3, 2, 0, 1))
            key = ".".join([*path, names[leaf]])
            tensors[key] = torch.from_numpy(np.array(value))
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.train()


def our_losses(segmenter, discriminator, variables_g, variables_d, batch):
    sgd = optim.sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0)
    adam = optim.adam(learning_rate=0.0)
    state = train_state.TrainState(
        jnp.int32(0),
        train_state.init_player(variables_g, sgd, loss_scale=None),
        train_state.init_player(variables_d, adam, loss_scale=None),
    )
    hyper = make_hyper(
        learning_rate_g=torch_step.LEARNING_RATE_G,
        learning_rate_d=torch_step.LEARNING_RATE_D,
        temperature_seg=torch_step.TEMPERATURE_G,
        temperature_adv=torch_step.TEMPERATURE_G,
        temperature_d=torch_step.TEMPERATURE_D,
        alpha=torch_step.ALPHA,
    )
    objective = make_objective(segmenter, discriminator)
    step = jax.jit(functools.partial(steps.train_step, objective=objective))
    losses = []
    for _ in range(2):
        state, metrics = step(state, batch, hyper)
        losses.append({name: float(value) for name, value in metrics.items()})
    return losses


def peer_losses(segmenter, discriminator, batch):
    for module in segmenter.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    step = torch_step.build_step(
        segmenter, discriminator, dtype="float32", compiled=False
    )
    image = torch.from_numpy(batch["image"])
    label = torch.from_numpy(batch["label"].astype(np.int64))
    losses = [step(image, label) for _ in range(2)]
    return [{key: value.item() for key, value in each.items()} for each in losses]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_precision_trains_both_players(dtype):
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.normalize = torch_networks.Normalize()
            self.score = torch.nn.Conv2d(3, NUM_CLASSES, 1)

        def forward(self, image):
            return self.score(self.normalize(image)).float()

    torch.manual_seed(0)
    segmenter, discriminator = Tiny(), torch_networks.Discriminator(NUM_CLASSES)
    before = segmenter.score.weight.clone(), discriminator.conv1.weight.clone()
    step = torch_step.build_step(segmenter, discriminator, dtype=dtype, compiled=False)
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    label = torch.randint(0, NUM_CLASSES, (2, 32, 32))
    losses = step(image, label)
    assert all(torch.isfinite(value) for value in losses.values())
    assert not torch.equal(segmenter.score.weight, before[0])
    if dtype != "float16":  # whose first loss scale is too large for D, as in ours
        assert not torch.equal(discriminator.conv1.weight, before[1])
