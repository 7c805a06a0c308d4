"""Writes metrics to metrics.jsonl, TensorBoard and the terminal."""

import json
import sys
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tqdm import tqdm

from tempseg_jax.io import atomic
from tempseg_jax.io.json_files import finite_or_null


def read_metrics(workdir: str | Path) -> list[dict[str, int | float | None]]:
    """Return the lines of a workdir's metrics.jsonl, or [] if there is no such file.

    A last line without a line break is ignored: its process was killed.

    Raises:
        ValueError: If a complete line is not JSON.
    """
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    metrics = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            continue
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}: line {number} is not JSON ({error}); delete that line"
            ) from None
    return metrics


def rate_text(rate: float) -> str:
    """Return a rate with a tenth of a unit, or with two digits if it is below 1."""
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


class Silent:
    """Writes nothing; for every process of a run except the first one."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write nothing."""

    def show(
        self,
        step: int,
        scalars: dict[str, float],
        pictures: dict[str, UInt8[np.ndarray, "_ _ 3"]],
    ) -> None:
        """Show nothing."""

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Print nothing."""


class Writer:
    """Writes the metrics of one run, and appends to those before a resume."""

    def __init__(self, workdir: str | Path, *, first_step: int, last_step: int):
        """Open the files, and drop metrics after `first_step`, which will be rewritten.

        Args:
            workdir: The workdir of the run.
            first_step: The step that training starts or resumes from.
            last_step: The step that the whole run ends with.
        """
        workdir = Path(workdir)
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(workdir) if line["step"] <= first_step]
        with atomic.replacing(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._lines = path.open("a")
        self._events = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1
        )
        self._last_step = last_step
        self._bar = (
            tqdm(total=last_step, initial=first_step, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._events.close()
        if self._bar is not None:
            self._bar.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write one line with names such as `train/loss_seg`; NaN becomes null."""
        line = {"step": step} | finite_or_null(metrics)
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def show(
        self,
        step: int,
        scalars: dict[str, float],
        pictures: dict[str, UInt8[np.ndarray, "_ _ 3"]],
    ) -> None:
        """Write numbers and pictures by name to TensorBoard only."""
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)
        for name, picture in pictures.items():
            self._events.add_image(name, picture, step, dataformats="HWC")

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show the progress of training: a progress bar on a terminal, else a line."""
        loss, rate = metrics["train/loss"], metrics["train/images_per_s"]
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate_text(rate)} images/s")
            self._bar.update(step - self._bar.n)
            return
        left = (self._last_step - step) / metrics["train/steps_per_s"]
        print(
            f"step {step}/{self._last_step}  loss {loss:.4f}  {rate_text(rate)} "
            f"images/s  {int(left) // 60}:{int(left) % 60:02d} left",
            flush=True,
        )

    def message(self, text: str) -> None:
        """Print a line; a progress bar stays below it."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)
