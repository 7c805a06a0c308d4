"""Figures of four training steps as compiled for an H100, kept in compiled_steps.json.

    python -m tests.aot.compiled_steps --reason="..."

measures the steps with the installed version of jax, and replaces the entry of that
version: figures differ between versions. The reason is stored with them. The extra
cuda-compile must be installed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from tempseg_jax.aot import report
from tempseg_jax.aot.cards import CARDS
from tempseg_jax.aot.compilation import compile_step
from tempseg_jax.io import json_files
from tests.support import load_config

FILE = Path(__file__).with_suffix(".json")
STEPS = {
    f"{model} {mode}": (model, mode)
    for model in ("fcn8s", "resnet50")
    for mode in ("supervised", "adversarial")
}
FIGURES = ("need_gib", "gb_moved", "kernels")


def measure(name: str) -> dict[str, Any]:
    """Compile a step of STEPS at the size of the paper's training, in bfloat16."""
    config = load_config("fcn_voc")
    config.model.name, mode = STEPS[name]
    if mode == "supervised":
        config.objective.alpha = 0.0
    card = CARDS["h100"]
    step = compile_step(config, num_classes=21, card=card, num_devices=1)
    return report.describe_step(step, card)


def recorded() -> dict[str, dict[str, Any]]:
    """Return {version of jax: {step: figures}} of the file."""
    return json.loads(FILE.read_text())


def main() -> None:
    """Measure all steps, and replace the entry of this version of jax."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reason", required=True, help="why the figures changed")
    reason = parser.parse_args().reason
    jax.config.update("jax_platforms", "cpu")
    figures: dict[str, Any] = {"reason": reason}
    for name in STEPS:
        result = measure(name)
        figures[name] = {figure: result[figure] for figure in FIGURES}
        print(name, figures[name], flush=True)
    entries = recorded() | {jax.__version__: figures}
    json_files.write_json(FILE, dict(sorted(entries.items())))


if __name__ == "__main__":
    main()
