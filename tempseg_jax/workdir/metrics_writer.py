"""Writes metrics to metrics.jsonl, TensorBoard, the terminal and, if set, W&B."""

import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt8
from tqdm import tqdm

from tempseg_jax.io import atomic
from tempseg_jax.io.json_files import finite_or_null
from tempseg_jax.workdir import log_digest
from tempseg_jax.workdir.events import Events
from tempseg_jax.workdir.wandb_run import WandbRun


def read_metrics(workdir: str | Path) -> list[dict[str, int | float | None]]:
    """Return the lines of a workdir's metrics.jsonl, or [] if there is no such file.

    The copy of a run has metrics.jsonl.gz (`sweep.copies`), which is read instead. A
    last line that is incomplete is dropped with a warning: its process was killed.

    Raises:
        ValueError: If another line is not a JSON object with a step, or the compressed
            file is damaged.
    """
    path = Path(workdir) / "metrics.jsonl"
    compressed = path.with_name("metrics.jsonl.gz")
    if path.exists():
        content = path.read_bytes()
    elif compressed.exists():
        path, content = compressed, _decompressed(compressed)
    else:
        return []
    metrics = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            logging.warning(
                "%s: line %d is incomplete and left out; its process was killed",
                path,
                number,
            )
            continue
        try:
            metrics.append(_parsed(line))
        except ValueError as error:  # JSONDecodeError, or UnicodeDecodeError
            raise ValueError(
                f"{path}: line {number} is not JSON ({error!s:.80}); delete that line"
            ) from None
    return metrics


def _decompressed(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: it is damaged ({error}); restore it, or delete it"
        ) from None


def rate_text(rate: float) -> str:
    """Return a rate with a tenth of a unit, or with two digits if it is below 1."""
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _parsed(line: bytes) -> dict[str, int | float | None]:
    content = json.loads(line.decode())
    if not isinstance(content, dict) or type(content.get("step")) is not int:
        raise ValueError("it is no object with a step")
    for name, value in content.items():
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name} is no number")
    return content


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

    def sync(self) -> None:
        """Write nothing."""

    def progress(
        self, step: int, metrics: dict[str, float], *, left: str | None
    ) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Print nothing."""


class Writer:
    """Writes the metrics of one run, and appends to those before a resume."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        start_step: int,
        last_step: int,
        wandb_config: Mapping[str, Any] | None = None,
    ):
        """Open the files, and drop metrics after `start_step`, which will be rewritten.

        A warning says if the metrics are not those that an earlier `Writer` has synced.

        Args:
            workdir: The workdir of the run.
            start_step: The step that training starts or resumes from.
            last_step: The step that the whole run ends with.
            wandb_config: The config, to be shown by Weights & Biases; None does not
                log there.
        """
        workdir = Path(workdir)
        self._path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(workdir) if line["step"] <= start_step]
        if log_digest.log_has_changed(workdir):
            logging.warning(
                "%s has changed since training wrote it: it was edited, or is damaged; "
                "training itself does not use it",
                self._path,
            )
        text = "".join(json.dumps(line) + "\n" for line in kept)
        log_digest.forget(workdir)
        with atomic.replacing(self._path) as partial:
            partial.write_text(text)
        self._digest = log_digest.LogDigest(workdir, text)
        self._lines = self._path.open("a")
        self._logs: list[Events | WandbRun] = [
            Events(workdir / "tensorboard", purge_step=start_step + 1)
        ]
        if wandb_config is not None:
            self._logs.append(WandbRun(workdir, config=wandb_config))
        self._last_step = last_step
        self._bar = (
            tqdm(
                total=last_step,
                initial=start_step,
                unit="step",
                dynamic_ncols=True,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
            )
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
        for log in self._logs:
            log.close()
        with self._disk():
            self._lines.close()
        if self._bar is not None:
            self._bar.close()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write one line with names such as `train/loss_seg`; NaN becomes null."""
        line = json.dumps({"step": step} | finite_or_null(metrics)) + "\n"
        with self._disk():
            self._lines.write(line)
            self._lines.flush()
        self._digest.add(line)
        for log in self._logs:
            log.add(step, metrics)

    def show(
        self,
        step: int,
        scalars: dict[str, float],
        pictures: dict[str, UInt8[np.ndarray, "_ _ 3"]],
    ) -> None:
        """Write numbers and pictures by name, but not to metrics.jsonl."""
        for log in self._logs:
            log.add(step, scalars, pictures)

    def sync(self) -> None:
        """Flush the lines and their digest to disk, before a checkpoint relies on them.

        Raises:
            OSError: If the disk reports an error.
        """
        with self._disk():
            os.fsync(self._lines.fileno())
            self._digest.write()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Name the file in an error of writing it, and the remedy."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; free some space or repair the disk, and start the "
                "same command again, which resumes from the last checkpoint",
                str(self._path),
            ) from None

    def progress(
        self, step: int, metrics: dict[str, float], *, left: str | None
    ) -> None:
        """Show the progress of training: a progress bar on a terminal, else a line.

        Args:
            step: The step of the metrics.
            metrics: The metrics that were written.
            left: The time left, with evaluations, in words; None after the last step.
        """
        loss, rate = metrics["train/loss"], metrics["train/images_per_s"]
        left = f"{left} left" if left else "done"
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {loss:.4f}, {rate_text(rate)} images/s, {left}"
            )
            self._bar.update(step - self._bar.n)
            return
        print(
            f"step {step}/{self._last_step}  loss {loss:.4f}  {rate_text(rate)} "
            f"images/s  {left}",
            flush=True,
        )

    def message(self, text: str) -> None:
        """Print a line; a progress bar stays below it."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)
