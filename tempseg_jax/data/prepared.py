"""Write a dataset once as TFDS array_record files, then read it by random access.

Examples are streamed to disk in their official order; TFDS's own generator keeps up to
1 GB in memory, and the whole dataset if it does not shuffle.
"""

import collections
import contextlib
import functools
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from tempseg_jax.data import codec, problem_files
from tempseg_jax.data.codec import BadFile
from tempseg_jax.data.problem_files import ON_ERROR
from tempseg_jax.data.sources.base import Entry, Record, Source, data_home, digest
from tempseg_jax.io import machine_errors
from tempseg_jax.io.prepare_once import prepare_once

VERSION = "1.4.0"  # of the records; increase it when their content changes
_METADATA = {"class_names", "palette", "left_out", "notes", "sizes"}
_DIGEST = "sha256"  # key of the metadata's own digest, which older datasets lack
_EXAMPLES_PER_SHARD = 2048
_EXAMPLES_PER_WRITE = 64
_SPARE_BYTES = 8 << 20
_REMEDY = "free some space, or set data.data_dir to another disk"


class Examples(Sequence[Record]):
    """Undecoded records of one or more prepared splits, with random access.

    Args:
        folder: The folder that `prepare` returned.
        expression: Splits joined by '+', see `Source.split_expression`.
    """

    def __init__(self, folder: Path, *, expression: str):
        self.folder = folder
        self.expression = expression
        raw = {name: tfds.decode.SkipDecoding() for name in ("image", "label")}
        with _damage(folder):
            builder = tfds.builder_from_directory(folder)
            self._records = builder.as_data_source(split=expression, decoders=raw)
            self._indices = range(len(self._records))

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Record:
        index = self._indices[index]  # IndexError ends iteration
        with _damage(self.folder):
            record = self._records[index]
            return {**record, "id": record["id"].decode()}


def prepare(source: Source, *, data_dir: str | None, on_error: str) -> Path:
    """Return the folder of the prepared source, writing it if it does not exist.

    The folder's name contains the source's fingerprint, so that changed files or other
    options are prepared separately. If several processes call this at once, one
    prepares and the others wait.

    Args:
        source: The files to prepare.
        data_dir: Where TFDS keeps its datasets; None is TFDS_DATA_DIR, or
            ~/tensorflow_datasets if that is not set.
        on_error: 'raise' refuses a source with problem files; 'skip' skips them, and
            uses what 'raise' has prepared if there are none.

    Raises:
        ProblemFiles: If there are problem files and `on_error` is 'raise'.
        ValueError: If `on_error` has another value, or a split has no usable image.
        OSError: If the disk is too small, or `data_dir` cannot be written.
    """
    problem_files.check_on_error(on_error)
    home, fingerprint = data_home(data_dir) / source.name, source.fingerprint()
    folders = {x: home / digest(fingerprint, x) / VERSION for x in ON_ERROR}
    if on_error == "skip" and folders["raise"].is_dir():
        return folders["raise"]  # nothing had to be skipped
    final = folders[on_error]
    write = functools.partial(_prepare, source, final=final, on_error=on_error)
    prepare_once(final, write)
    return final


def read_metadata(folder: Path) -> dict:
    """Return what `prepare` wrote: class names, palette, sizes, and messages."""
    with _damage(folder):
        metadata = dict(tfds.builder_from_directory(folder).info.metadata)
        stored = metadata.pop(_DIGEST, None)
        if wrong := _METADATA ^ metadata.keys():
            wrong = ", ".join(sorted(wrong))
            raise KeyError(f"metadata.json has other fields than expected: {wrong}")
        if stored is not None and stored != _digest_of(metadata):
            raise ValueError("metadata.json has changed since it was written")
        return metadata


def _digest_of(metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the metadata as JSON, which has lists for tuples."""
    text = json.dumps({name: metadata[name] for name in sorted(_METADATA)})
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Replace any error of reading: TFDS raises many types for damaged files.

    Raises:
        OSError: If anything is raised, with the remedy.
        MemoryError: If the memory is full.
    """
    try:
        yield
    except Exception as error:
        machine_errors.reraise(error, path=folder)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise OSError(
            f"{folder}: the prepared dataset is damaged ({reason}); delete this folder,"
            " and it is prepared again"
        ) from error


def _prepare(source: Source, folder: Path, *, final: Path, on_error: str) -> None:
    """Write all splits to `folder`, which is renamed to `final` afterwards."""
    entries = {split: source.entries(split) for split in source.splits}
    _check_disk(entries, final)
    message = f"preparing {source.name} from {source.where} in {final}"
    print(message, file=sys.stderr, flush=True)
    notes = list(source.notes())
    for note in notes:
        logging.warning("%s", note)
    left_out = _write(source, entries, folder, notes=notes, on_error=on_error)
    if left_out:
        problems = list(itertools.chain.from_iterable(left_out.values()))
        skipped = problem_files.summary(problems, where=source.where)
        logging.warning("%s They are skipped.", skipped)


def _check_disk(entries: dict[str, Sequence[Entry]], final: Path) -> None:
    images = sum(entry.nbytes for members in entries.values() for entry in members)
    needed = _SPARE_BYTES + images * 11 // 10  # 10 % for labels and headers
    free = shutil.disk_usage(final.parent).free
    if needed > free:
        raise OSError(
            f"{final}: needs about {needed:,} bytes, but {free:,} are free; {_REMEDY}"
        )


def _write(
    source: Source,
    entries: dict[str, Sequence[Entry]],
    folder: Path,
    *,
    notes: list[str],
    on_error: str,
) -> dict[str, list[str]]:
    """Write all splits; return the messages on problem files, which are skipped.

    They are by split, without the splits that have none.
    """
    info = _info(source, folder)
    problems: list[str] = []
    left_out = {}
    sizes = {}
    try:
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=_EXAMPLES_PER_SHARD, file_format="array_record"
        )
        writer.initialize_splits(list(entries))
        for split, members in entries.items():
            before = len(problems)
            records = _records(source, split, members, problems=problems)
            sizes[split] = _write_split(records, split, writer=writer)
            if skipped := problems[before:]:
                left_out[split] = skipped
            if not sizes[split]:
                skipped = problem_files.summary(problems, where=source.where)
                raise ValueError(f"the split {split} has no usable image; {skipped}")
        if problems and on_error == "raise":
            raise problem_files.ProblemFiles(problems, where=source.where)
        names, palette = source.classes()
        info.metadata["class_names"] = list(names)
        info.metadata["palette"] = palette.tolist()
        info.metadata["left_out"] = left_out
        info.metadata["notes"] = notes
        info.metadata["sizes"] = {
            split: [[*size, count] for size, count in counts.items()]
            for split, counts in sizes.items()
        }
        info.metadata[_DIGEST] = _digest_of(info.metadata)
        writer.close_all()
    except RuntimeError as error:  # from array_record, with the file and the reason
        raise OSError(f"{folder}: cannot be written ({error}); {_REMEDY}") from error
    for split, counts in sizes.items():
        examples = Examples(folder, expression=split)
        if len(examples) != counts.total() or not examples[counts.total() - 1]["id"]:
            raise OSError(f"{folder}: {split} cannot be read back; {_REMEDY}")
    return left_out


def _records(
    source: Source, split: str, entries: Sequence[Entry], *, problems: list[str]
) -> Iterator[Record]:
    bar = tqdm(
        entries,
        desc=f"preparing {source.name} {split}",
        unit=" images",
        disable=None,  # no progress bar without a terminal
    )
    for entry in bar:
        try:
            yield entry.load()
        except BadFile as error:
            problems.append(str(error))


def _write_split(
    records: Iterable[Record], split: str, *, writer: tfds.core.SequentialWriter
) -> collections.Counter[tuple[int, int]]:
    """Write the records in batches; return the number of each (height, width)."""
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
