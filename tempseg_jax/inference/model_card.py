"""The model card of a published segmenter, from the files of its workdir."""

import json
from pathlib import Path
from typing import Any

from tempseg_jax.data.sources import voc
from tempseg_jax.inference.predictor import Predictor
from tempseg_jax.workdir import saved_config
from tempseg_jax.workdir.metrics_writer import read_metrics

_RULE = (
    "All scores are from one confusion matrix over all evaluated images, at their own"
    " sizes, without void pixels; absent classes are left out of the mean."
)


def model_card(
    predictor: Predictor, workdir: str | Path, *, address: str, license_name: str
) -> str:
    """Return the card as Markdown, with the Hub's metadata at its start.

    Args:
        predictor: The segmenter, as it was loaded from the workdir.
        workdir: Its workdir; config.json, metrics.jsonl and eval-*.json are read, as
            far as they are there.
        address: What `tempseg_jax.load` takes: hf://USER/NAME, or a folder.
        license_name: The license of the weights, by its name on the Hub.

    Raises:
        ValueError: If one of the files is damaged.
    """
    workdir = Path(workdir)
    config = saved_config.without_folders(workdir) or {}
    evaluations = _evaluations(workdir, step=predictor.step)
    classes = "\n".join(
        f"| {k} | {name} | {', '.join(map(str, color))} |"
        for k, (name, color) in enumerate(
            zip(predictor.class_names, predictor.palette.tolist(), strict=True)
        )
    )
    scores = _scores(workdir, evaluations, step=predictor.step)
    not_measured = _not_measured(evaluations, config)
    return f"""---
library_name: tempseg_jax
pipeline_tag: image-segmentation
license: {license_name}
tags: [semantic-segmentation, jax, adversarial, temperature]
---
# {predictor.name} on {predictor.dataset}

A network for semantic segmentation with {len(predictor.class_names)} classes, trained
with tempseg_jax.

```python
import tempseg_jax

predictor = tempseg_jax.load("{address}")
labels = predictor("photograph.jpg")  # uint8 (h, w): the class of every pixel
```

## Training
{_training(config, predictor)}

## Scores
{scores}

{_RULE}

Not measured: {not_measured}.

## Classes
| label | name | color (RGB) |
| --- | --- | --- |
{classes}

## License
Weights: {license_name}. The licenses of the training images and of the pretrained
weights are those of their publishers, and are not stated here.
"""


def _training(config: dict[str, Any], predictor: Predictor) -> str:
    if not config:
        return f"Step {predictor.step}; the config of training is not known."
    data, objective = config["data"], config["objective"]
    alpha = objective["alpha"]
    adversary = f"{objective['adversary']}, weight α = {alpha:g}" if alpha else "none"
    rows = {
        "data": f"{data['name']}, split {data['train_split']}",
        "part of the images": f"{data['train_fraction']:g}",
        "steps": f"{predictor.step}, of {data['batch_size']} crops of"
        f" {data['crop_size']}² pixels",
        "initial weights": config["model"]["pretrained"] or "random",
        "adversarial loss": adversary,
        "temperatures": f"T_G = {predictor.temperature_g:g},"
        f" T_D = {objective['temperature_d']:g}",
        "precision": config["precision"],
        "seed": str(config["seed"]),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _evaluations(workdir: Path, *, step: int) -> list[dict[str, Any]]:
    """Return the evaluations of this checkpoint: what `--mode=eval` wrote."""
    reports = []
    for path in sorted(workdir.glob("eval-*.json")):
        try:
            report = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: is not JSON ({error}); evaluate again") from None
        if report["checkpoint"] == step:
            reports.append(report)
    return reports


def _scores(workdir: Path, evaluations: list[dict[str, Any]], *, step: int) -> str:
    lines = ["| evaluated | images | mIoU | pAcc | NLL | ECE |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for x in evaluations:
        limit = f" of {x['limit']['of']}" if "limit" in x else ""
        settings = x["inference"] if "inference" in x else x["views"]  # its older name
        window = settings["window"]
        how = f"window {window}" if window else "default windows"
        how += f", scales {settings['scales']}"
        how += ", flipped" if settings["flip"] else ""
        lines.append(
            f"| {x['dataset']} {x['split']}, {how} | {x['images']}{limit} |"
            f" {_percent(x['miou'])} | {_percent(x['pacc'])} | {_nats(x['nll'])} |"
            f" {_percent(x['ece'])} |"
        )
    if evaluations:
        return "\n".join(lines)
    logged = [x for x in read_metrics(workdir) if x["step"] == step and "val/miou" in x]
    for x in logged[-1:]:
        lines.append(
            f"| validation split during training, default windows | – |"
            f" {_percent(x['val/miou'])} | {_percent(x['val/pacc'])} |"
            f" {_nats(x['val/nll'])} | {_percent(x['val/ece'])} |"
        )
    return "\n".join(lines) if logged else "This checkpoint was not evaluated."


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _parts(split: str) -> set[str]:
    """Return the parts of a split; only splits of VOC consist of several."""
    return set(voc.EXPRESSIONS.get(split, split).split("+"))


def _not_measured(evaluations: list[dict[str, Any]], config: dict[str, Any]) -> str:
    missing = []
    data = config.get("data", {})
    used = _parts(data.get("val_split", "val")) | _parts(
        data.get("train_split", "train")
    )
    independent = (x for x in evaluations if not _parts(x["split"]) & used)
    if all(x["miou"] is None for x in independent):  # None: it has no labels
        missing.append(
            "scores on images that neither trained the network nor chose its checkpoint"
        )
    missing += ["the variation over seeds", "images of other sources", "fairness"]
    return "; ".join(missing)
