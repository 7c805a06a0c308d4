"""Load a trained segmenter from a workdir, a published folder or the Hub."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtyping import PyTree

from tempseg_jax.inference import published
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.inference.settings import InferenceSettings
from tempseg_jax.models import SEGMENTERS, with_field
from tempseg_jax.models.build import build_segmenter
from tempseg_jax.models.preprocessing import Preprocessing
from tempseg_jax.precision import COMPUTE_DTYPES
from tempseg_jax.workdir.checkpoint import Checkpoints, StepOrName


def load(
    workdir: str | Path,
    checkpoint: StepOrName = "best",
    *,
    window: int | None = None,
    stride: int | None = None,
    scales: tuple[float, ...] = (1.0,),
    flip: bool = False,
    precision: str | None = None,
) -> Predictor:
    """Load a trained segmenter onto one device.

    Args:
        workdir: Folder of a training run, of which only the checkpoints are read; or
            one that scripts/publish.py wrote; or hf://USER/NAME, which is downloaded
            from the Hugging Face Hub.
        checkpoint: "best" (highest validation mIoU), "latest", or a step. What is
            published has only one.
        window: Side of the windows of sliding-window inference, in pixels. By default
            images of up to 2048 x 1024 pixels run whole, and larger ones in windows.
        stride: Pixels between windows; by default two thirds of a window.
        scales: Scales of test-time augmentation, whose probabilities are averaged.
        flip: Test-time augmentation: also average over the mirror image.
        precision: "float32", "bfloat16" or "float16"; by default that of training.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range, or SEGMENTERS does not have the
            checkpoint's architecture.
    """
    settings = InferenceSettings(
        window=window, stride=stride, scales=tuple(scales), flip=flip
    )
    workdir = _local(workdir)
    if published.is_published(workdir):
        return _load_published(workdir, settings=settings, precision=precision)
    checkpoints = Checkpoints(workdir)

    def read(step: int) -> Predictor:
        model = checkpoints.model(step)
        segmenter = _build_segmenter(
            model, precision=precision, where=f"{checkpoints.folder}/{step}"
        )
        abstract = _abstract_variables(segmenter)
        variables = checkpoints.restore_segmenter(abstract, model, step=step)
        return Predictor(
            segmenter, variables, model=model, settings=settings, step=step
        )

    try:
        return checkpoints.read(checkpoint, read)
    finally:
        checkpoints.close()


def _local(workdir: str | Path) -> str | Path:
    """Return a folder of this machine: an address on the Hub is downloaded."""
    if str(workdir).startswith(published.HUB):
        return published.fetch(str(workdir))
    return Path(workdir).expanduser()


def read_model(workdir: str | Path) -> dict[str, Any]:
    """Return the description of the segmenter that `load` loads by default.

    The weights are not read, but those on the Hub are downloaded.

    Args:
        workdir: As in `load`.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the description cannot be read.
    """
    workdir = _local(workdir)
    if published.is_published(workdir):
        return published.read_model(workdir)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return checkpoints.read("best", checkpoints.model)


def _load_published(
    folder: str | Path, *, settings: InferenceSettings, precision: str | None
) -> Predictor:
    """Load what scripts/publish.py wrote."""
    model, step, variables = published.read(folder)
    segmenter = _build_segmenter(model, precision=precision, where=str(folder))
    abstract = _abstract_variables(segmenter)
    if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, abstract):
        raise ValueError(
            f"{folder}: the weights are not those of the network that "
            f"{published.DESCRIPTION} describes; publish it again"
        )
    placed = jax.tree.map(
        lambda x, y: jax.device_put(x, y.sharding), variables, abstract
    )
    return Predictor(segmenter, placed, model=model, settings=settings, step=step)


def _build_segmenter(
    model: dict[str, Any], *, precision: str | None, where: str
) -> nn.Module:
    """Return the network that a checkpoint's `model` item describes."""
    if model["name"] not in SEGMENTERS:
        raise ValueError(
            f"{where}: model.name {model['name']!r} is not one of "
            f"{', '.join(sorted(SEGMENTERS))}; register it in "
            "tempseg_jax.models.SEGMENTERS first"
        )
    precision = precision or model["precision"]
    if precision not in COMPUTE_DTYPES:
        raise ValueError(
            f"precision: {precision!r} is not one of {', '.join(COMPUTE_DTYPES)}"
        )
    segmenter = build_segmenter(
        model["name"],
        head=model["head"],
        output_stride=model["output_stride"],
        auxiliary=model["auxiliary"],
        num_classes=model["num_classes"],
        preprocessing=Preprocessing.restored(model["preprocessing"]),
        width=model["width"],
        dtype=COMPUTE_DTYPES[precision],
        remat=False,
    )
    if not model["drop_connect"]:
        return segmenter
    return with_field(segmenter, "drop_connect", model["drop_connect"])


def _abstract_variables(segmenter: nn.Module) -> PyTree:
    """Return the variables' shapes, placed on one device.

    The checkpoint may have been trained on more devices than this machine has.
    """
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    init = partial(segmenter.init, train=False)
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    variables = {"batch_stats": {}} | jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), variables
    )
