"""Where numbers go: metrics.jsonl, TensorBoard, and the terminal."""

import json
import math
import sys
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter
from tqdm import tqdm


def read_metrics(workdir: str | Path) -> list[dict[str, int | float | None]]:
    """Return the lines of a workdir's metrics.jsonl; none if it has no such file."""
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    # A killed run may have left half a line at the end.
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Silent:
    """The writer of every process but the first: one run writes its numbers once."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write nothing."""

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Print nothing."""


class Writer:
    """Writes one run's numbers, going on where an earlier start left off."""

    def __init__(self, workdir: str | Path, *, first_step: int, last_step: int):
        """Drop what was written after `first_step`: it will be written again."""
        workdir = Path(workdir)
        kept = [line for line in read_metrics(workdir) if line["step"] <= first_step]
        partial = workdir / "metrics.jsonl.partial"
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        partial.replace(workdir / "metrics.jsonl")
        self._lines = (workdir / "metrics.jsonl").open("a")
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
        """Write one line of names such as `train/loss_seg`; NaN becomes null."""
        finite = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        self._lines.write(json.dumps({"step": step} | finite) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show where training is: a bar on a terminal, a line elsewhere."""
        loss, rate = metrics["train/loss"], metrics["train/images_per_s"]
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:.1f} images/s")
            self._bar.update(step - self._bar.n)
            return
        left = (self._last_step - step) / metrics["train/steps_per_s"]
        print(
            f"step {step}/{self._last_step}  loss {loss:.4f}  {rate:.1f} images/s  "
            f"{int(left) // 60}:{int(left) % 60:02d} left",
            flush=True,
        )

    def message(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)
