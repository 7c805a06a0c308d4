"""TFDS datasets on array_record: written once and whole, then read at random.

Examples stream to disk in their official order (TFDS's own generator keeps up to 1 GB
in memory, and everything when told not to shuffle), into a folder that gets its final
name last: a preparation that was interrupted is never taken for a finished one.
"""

import collections
import itertools
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import filelock
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from tempseg_jax.data import codec
from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.sources.base import Entry, Record, Source, data_home, digest

VERSION = "1.2.0"  # of the records; raise it when they change
ON_ERROR = ("raise", "skip")
_EXAMPLES_PER_SHARD = 2048
_EXAMPLES_PER_WRITE = 64
_NAMED_PROBLEMS = 10
_SPARE = 8 << 20  # bytes
_REMEDY = "make room, or set data.data_dir to another disk"


class ProblemFiles(ValueError):
    """Files that cannot be used; the message names the first ten, `problems` all."""

    def __init__(self, problems: Sequence[str], *, where: str):
        self.problems = tuple(problems)
        super().__init__(
            f"{_summary(problems, where=where)} Repair or remove them, or set"
            " data.on_error=skip to leave them out."
        )


class Examples(Sequence[Record]):
    """Undecoded records of one or more prepared splits, in order, at random."""

    def __init__(self, folder: Path, *, expression: str):
        builder = tfds.builder_from_directory(folder)
        raw = {name: tfds.decode.SkipDecoding() for name in ("image", "label")}
        self._records = builder.as_data_source(split=expression, decoders=raw)
        self._indices = range(len(self._records))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        record = self._records[self._indices[index]]  # IndexError ends an iteration
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
        ProblemFiles: there are some, and `on_error` is 'raise'.
        ValueError: `on_error` is neither, or a split has no usable image.
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
    entries = {split: source.entries(split) for split in source.splits}
    _check_disk(entries, final)
    temporary = final.with_name(f"{VERSION}.incomplete")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    where = f"{source.name} from {source.where} in {final}"
    print(f"preparing {where}", file=sys.stderr, flush=True)
    try:
        temporary.mkdir()
        problems = _write(source, entries, temporary)
        if problems:
            if on_error == "raise":
                raise ProblemFiles(problems, where=source.where)
            logging.warning("%s Left out.", _summary(problems, where=source.where))
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_disk(entries: dict[str, Sequence[Entry]], final: Path) -> None:
    images = sum(entry.nbytes for members in entries.values() for entry in members)
    needed = _SPARE + images * 11 // 10  # a tenth for labels and for headers
    free = shutil.disk_usage(final.parent).free
    if needed > free:
        raise OSError(
            f"{final}: needs about {needed:,} bytes, but {free:,} are free; {_REMEDY}"
        )


def _write(
    source: Source, entries: dict[str, Sequence[Entry]], folder: Path
) -> list[str]:
    """Write every split; return what was wrong with the files that were left out."""
    info = _info(source, folder)
    problems: list[str] = []
    sizes = {}
    try:
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=_EXAMPLES_PER_SHARD, file_format="array_record"
        )
        writer.initialize_splits(list(entries))
        for split, members in entries.items():
            records = _records(source, split, members, problems=problems)
            sizes[split] = _write_split(records, split, writer=writer)
            if not sizes[split]:
                found = _summary(problems, where=source.where)
                raise ValueError(f"no usable image in {split}. {found}")
        names, palette = source.classes()
        info.metadata["class_names"] = list(names)
        info.metadata["palette"] = palette.tolist()
        info.metadata["left_out"] = problems
        info.metadata["sizes"] = {
            split: [[*size, count] for size, count in counts.items()]
            for split, counts in sizes.items()
        }
        writer.close_all()
    except RuntimeError as error:  # of array_record; it names the file and the reason
        raise OSError(f"{folder}: cannot be written ({error}); {_REMEDY}") from error
    for split, counts in sizes.items():
        examples = Examples(folder, expression=split)
        if len(examples) != counts.total() or not examples[counts.total() - 1]["id"]:
            raise OSError(f"{folder}: {split} cannot be read back; {_REMEDY}")
    return problems


def _records(
    source: Source, split: str, entries: Sequence[Entry], *, problems: list[str]
) -> Iterator[Record]:
    bar = tqdm(  # disable=None: no bar where there is no terminal
        entries, desc=f"preparing {source.name} {split}", unit=" images", disable=None
    )
    for entry in bar:
        try:
            yield entry.load()
        except BadFile as error:
            problems.append(str(error))


def _write_split(
    records: Iterable[Record], split: str, *, writer: tfds.core.SequentialWriter
) -> collections.Counter[tuple[int, int]]:
    """Write the records in batches; return how many there are of each size."""
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    records = iter(records)
    while batch := list(itertools.islice(records, _EXAMPLES_PER_WRITE)):
        writer.add_examples({split: batch})
        sizes.update(codec.label_size(record["label"]) for record in batch)
    return sizes


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
