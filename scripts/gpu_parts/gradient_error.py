"""Compare one network's gradients in 16 bits, and in TF32, with those in float32.

    python scripts/gpu_parts/gradient_error.py --model=resnet50

The score layers, which are zero at the start, are made random, because they would hide
the gradient of all other layers. All precisions have the same weights, images and
dropout masks. One JSON object is printed for each precision: the norm of the gradient's
error over the norm of the gradient, for all parameters of a player together, and for
the worst parameters of the segmenter.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmark_parts import step_case

from tempseg_jax import precision, steps, train_state
from tempseg_jax.models import SEGMENTERS, DCGANDiscriminator
from tempseg_jax.models.preprocessing import TORCHVISION
from tempseg_jax.objective.adversaries import ADVERSARIES
from tempseg_jax.objective.losses import Objective

CLASSES, WORST = 21, 5

VARIANTS = {
    # name: dtype of the convolutions, precision of products in float32
    "tf32": ("float32", "default"),  # on a CPU equal to float32
    "bfloat16": ("bfloat16", "default"),
    "float16": ("float16", "default"),
}


def gradients(
    args: argparse.Namespace, dtype: str
) -> tuple[tuple[dict, dict], float | None]:
    """Return the gradients of G and of D by parameter, as NumPy arrays.

    Also the loss scale with float16, which is halved until both are finite, as it is in
    training.
    """
    compute = precision.COMPUTE_DTYPES[dtype]
    objective = Objective(
        SEGMENTERS[args.model](
            num_classes=CLASSES,
            preprocessing=TORCHVISION,
            width=args.width,
            dtype=compute,
            remat=False,
        ),
        DCGANDiscriminator(compute),
        adversary=ADVERSARIES["lsgan"],
        critic_steps=1,
        mask_void=True,
    )
    state, _ = step_case.first_state(
        objective.segmenter, objective.discriminator, dtype=dtype, classes=CLASSES
    )
    params = jax.tree_util.tree_map_with_path(_not_zero, state.segmenter.params)
    state = state.replace(segmenter=state.segmenter.replace(params=params))
    compute_gradients = jax.jit(
        functools.partial(
            steps.compute_gradients,
            key=jax.random.key(1),
            seg_weight=1.0,
            objective=objective,
        )
    )
    batch = step_case.random_batch(batch=args.batch, size=args.size, classes=CLASSES)
    hyper = step_case.hyperparameters()
    while True:
        both, _, _ = compute_gradients(state, batch, hyper)
        scale = state.segmenter.loss_scale and float(state.segmenter.loss_scale.scale)
        if scale is None or scale <= 1 or all(bool(g.finite) for g in both):
            break
        state = state.replace(
            segmenter=_halved(state.segmenter),
            discriminator=_halved(state.discriminator),
        )
    return tuple(flatten_dict(jax.device_get(g.grads), sep="/") for g in both), scale


def _halved(player: train_state.Player) -> train_state.Player:
    scale = player.loss_scale.scale / 2
    return player.replace(loss_scale=player.loss_scale.replace(scale=scale))


def _not_zero(path: tuple, leaf: jax.Array) -> jax.Array:
    """Make kernels that are zero random, with the variance 1 / fan-in."""
    if leaf.ndim != 4 or jnp.any(leaf):
        return leaf
    key = jax.random.fold_in(jax.random.key(2), len(jax.tree_util.keystr(path)))
    return jax.random.normal(key, leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))


def errors(grads: dict, reference: dict) -> dict[str, float]:
    """Return |g - reference| / |reference| by parameter, where that is not zero."""
    return {
        name: _norm(grads[name] - value) / _norm(value)
        for name, value in reference.items()
        if _norm(value)
    }


def _norm(x: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))


def _all(grads: dict) -> np.ndarray:
    return np.concatenate([x.ravel() for x in grads.values()])


def main() -> None:
    """Print one JSON object for each precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=SEGMENTERS, default="fcn8s")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=float, default=1.0)
    args = parser.parse_args()
    with jax.default_matmul_precision("highest"):
        reference, _ = gradients(args, "float32")
    for name, (dtype, products) in VARIANTS.items():
        with jax.default_matmul_precision(products):
            grads, scale = gradients(args, dtype)
        each = errors(grads[0], reference[0])
        worst = sorted(each, key=each.get)[-WORST:][::-1]
        total = [
            _norm(_all(ours) - _all(exact)) / _norm(_all(exact))
            for ours, exact in zip(grads, reference, strict=True)
        ]
        result = {
            "model": args.model,
            "precision": name,
            "loss_scale": scale,
            "error_g": round(total[0], 5),
            "error_d": round(total[1], 5),
            "median_error_g": round(float(np.median(list(each.values()))), 5),
            "worst_g": {path: round(each[path], 5) for path in worst},
            "device": jax.devices()[0].device_kind,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
