"""TFDS datasets on array_record: written once and whole, then read at random.

Examples stream to disk in their official order (TFDS's own generator keeps up to 1 GB
in memory, and everything when told not to shuffle), into a folder that gets its final
name last: a preparation that was interrupted is never taken for a finished one.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import filelock
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.source import Record, Source, data_home, digest

VERSION = "1.1.0"  # of the records; raise it when they change
ON_ERROR = ("raise", "skip")
_EXAMPLES_PER_SHARD = 2048
_EXAMPLES_PER_WRITE = 64
_NAMED_PROBLEMS = 10


class Examples(Sequence[Record]):
    """Undecoded records of one or more prepared splits, in order, at random."""

    def __init__(self, folder: Path, *, expression: str):
        builder = tfds.builder_from_directory(folder)
        raw = {name: tfds.decode.SkipDecoding() for name in ("image", "label")}
        self._records = builder.as_data_source(split=expression, decoders=raw)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
        return {**record, "id": record["id"].decode()}


def prepare(source: Source, *, data_dir: str | None, on_error: str) -> Path:
    """Return the folder of the prepared source, writing it if it is not there.

    The folder's name holds the source's fingerprint, so that a changed source, or
    another one, is never mistaken for it. Two processes may call this at once.

    Args:
        source: what to prepare.
        data_dir: where TFDS keeps its datasets; None is TFDS_DATA_DIR, or
            ~/tensorflow_datasets.
        on_error: 'raise' refuses a source with problem files; 'skip' leaves them out.

    Raises:
        ValueError: `on_error` is neither, or there are problem files.
        OSError: the disk is full, or `data_dir` cannot be written.
    """
    if on_error not in ON_ERROR:
        raise ValueError(f"data.on_error={on_error!r}: must be one of {ON_ERROR}")
    home = data_home(data_dir) / source.name / digest(source.fingerprint(), on_error)
    final = home / VERSION
    if final.is_dir():
        return final
    home.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(home / "preparing.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logging.warning("waiting for another process to prepare %s", final)
        lock.acquire()
    try:
        if not final.is_dir():
            _write_whole(source, final, on_error=on_error)
    finally:
        lock.release()
    return final


def read_metadata(folder: Path) -> dict:
    """Return class_names, palette and left_out, as `prepare` wrote them."""
    return dict(tfds.builder_from_directory(folder).info.metadata)


def _write_whole(source: Source, final: Path, *, on_error: str) -> None:
    """Write beside `final`, check, and rename; leave nothing behind on failure."""
    temporary = final.with_name(f"{VERSION}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    where = f"{source.name} from {source.where} in {final}"
    print(f"preparing {where}", file=sys.stderr, flush=True)
    try:
        problems = _write(source, temporary)
        if problems:
            message = _summary(problems, where=source.where)
            if on_error == "raise":
                raise ValueError(
                    f"{message} Repair or remove them, or set data.on_error=skip to"
                    " leave them out."
                )
            logging.warning("%s Left out.", message)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: Source, folder: Path) -> list[str]:
    """Write every split; return what was wrong with the files that were left out."""
    info = _info(source, folder)
    writer = tfds.core.SequentialWriter(
        info, max_examples_per_shard=_EXAMPLES_PER_SHARD, file_format="array_record"
    )
    writer.initialize_splits(list(source.splits))
    problems: list[str] = []
    counts = {}
    for split in source.splits:
        counts[split] = _write_split(source, split, writer=writer, problems=problems)
    names, palette = source.classes()
    info.metadata["class_names"] = list(names)
    info.metadata["palette"] = palette.tolist()
    info.metadata["left_out"] = problems
    writer.close_all()
    for split, count in counts.items():
        examples = Examples(folder, expression=split)
        if len(examples) != count or not examples[count - 1]["id"]:
            raise OSError(f"{folder}: {split} cannot be read back; is the disk full?")
    return problems


def _write_split(
    source: Source,
    split: str,
    *,
    writer: tfds.core.SequentialWriter,
    problems: list[str],
) -> int:
    count, pending = 0, []
    bar = tqdm(  # disable=None: no bar where there is no terminal
        source.entries(split),
        desc=f"preparing {source.name} {split}",
        unit=" images",
        disable=None,
    )
    for entry in bar:
        try:
            pending.append(entry.load())
        except BadFile as error:
            problems.append(str(error))
            continue
        count += 1
        if len(pending) == _EXAMPLES_PER_WRITE:
            writer.add_examples({split: pending})
            pending = []
    if not count:
        found = _summary(problems, where=source.where)
        raise ValueError(f"{source.where}: no usable image in {split}. {found}")
    writer.add_examples({split: pending})
    return count


def _info(source: Source, folder: Path) -> tfds.core.DatasetInfo:
    image = tfds.features.Image(shape=(None, None, 3))
    label = tfds.features.Image(shape=(None, None, 1))
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=source.name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name=__name__,
            config_name=folder.parent.name,
        ),
        features=tfds.features.FeaturesDict(
            {"id": text, "image": image, "label": label}
        ),
        metadata=tfds.core.MetadataDict(),
        disable_shuffling=True,
    )


def _summary(problems: Sequence[str], *, where: str) -> str:
    named = "; ".join(problems[:_NAMED_PROBLEMS])
    more = len(problems) - _NAMED_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    return f"{where}: {len(problems)} problem files: {named}{rest}."
