"""TensorBoard events, whose failure never stops or blocks training.

tensorboardX's SummaryWriter writes in a thread behind a queue. On a full disk the
thread ends, the queue fills, and `add_scalar` blocks for ever. Its `EventsWriter` and
protocol buffers are used here directly.
"""

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from absl import logging
from jaxtyping import UInt8
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import image, scalar

FLUSH_SECONDS = 30
"""Seconds between flushes to disk, as far as the events of a killed run may be lost."""


class Events:
    """Writes scalars and pictures; after a failure it warns once and stops."""

    def __init__(self, folder: str | Path, *, purge_step: int):
        """Start a file of events; earlier ones from `purge_step` are hidden."""
        self._folder, self._writer = Path(folder), None
        self._flushed = time.monotonic()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # The name has the second of the start, which two starts may share.
            self._writer = EventsWriter(
                str(self._folder / "events"),
                filename_suffix=f".{os.getpid()}.{secrets.token_hex(3)}",
            )
            self._writer.write_event(
                Event(
                    step=purge_step,
                    session_log=SessionLog(status=SessionLog.START),
                )
            )
            self._writer.flush()
        except Exception as error:
            self._stop(error)

    def add(
        self,
        step: int,
        scalars: dict[str, float],
        pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]] = MappingProxyType({}),
    ) -> None:
        """Write one step's scalars and pictures."""
        if self._writer is None:
            return
        summaries = [scalar(name, value) for name, value in scalars.items()]
        try:
            for name, picture in pictures.items():
                summaries.append(image(name, picture, dataformats="HWC"))
            for summary in summaries:
                self._writer.write_event(
                    Event(step=step, wall_time=time.time(), summary=summary)
                )
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._writer.flush()  # to disk, which may take a while
                self._flushed = time.monotonic()
        except Exception as error:
            self._stop(error)

    def close(self) -> None:
        """Close the file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self._writer = None
        logging.warning(
            "%s: TensorBoard events are no longer written (%s); training goes on, and "
            "metrics.jsonl has every value",
            self._folder,
            error,
        )
