"""Scenarios that damage one file, and read it in a process of its own."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_parts import mutate
from fault_parts.campaign import Campaign
from fault_parts.child import Child

from tempseg_jax.cli import command as cli


def read(what: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that prints the digest of what is read, as a command would."""

    def run() -> None:
        cli.prepare()
        with cli.one_line_errors(debug=False):
            print(hashlib.sha256(repr(what()).encode()).hexdigest())

    return run


class Reader:
    """A scenario: copy a folder, damage one of its files, and read the folder.

    Args:
        source: The undamaged folder.
        what: Reads the folder, and returns something whose repr shows all of it.
        same: Whether another result than that of the undamaged folder is a finding.
            A photograph with another pixel is another photograph.
    """

    def __init__(self, source: Path, what: Callable[[Path], Any], *, same: bool):
        """Read the undamaged folder."""
        self._source, self._what, self._same = source, what, same
        self._files = sorted(
            path.relative_to(source) for path in source.rglob("*") if path.is_file()
        )
        done = Child(read(lambda: what(source))).wait()
        if done.code:
            raise RuntimeError(f"{source} cannot be read: {done.err}")
        self._expected = done.out

    def __call__(self, campaign: Campaign, name: str, seed: int, scratch: Path) -> None:
        """Inject one fault."""
        random_ = random.Random(seed)
        # The same parent folder: some folders contain paths, or are found by them.
        folder = shutil.copytree(self._source, scratch / self._source.name)
        file = random_.choice(self._files)
        what = f"{mutate.damage(folder / file, random_)} {file}"
        done = Child(read(lambda: self._what(folder))).wait(limit=30)
        if campaign.judge(name, seed, done, what):
            if self._same and done.out != self._expected:
                campaign.finding(name, seed, f"{what}: another result, without a word")
            else:
                campaign.add(name, "survived")
        shutil.rmtree(folder)


def images(folder: Path) -> Any:
    """Read every file as preparation and training do, and as prediction does."""
    from tempseg_jax.data import codec
    from tempseg_jax.inference import image_files

    result = []
    for path in sorted(folder.iterdir()):
        name = str(path)
        stored, size = codec.to_stored(path.read_bytes(), name=name)
        trained = codec.decode_image(stored, name=name)
        predicted = image_files.read(path)
        assert trained.shape[:2] == size and np.array_equal(trained, predicted), name
        result.append((size, _digest(trained)))
    return result


def masks(folder: Path) -> Any:
    """Read every file as preparation does."""
    from tempseg_jax.data import codec

    paths = sorted(folder.iterdir())
    return [_digest(codec.read_mask(x.read_bytes(), name=str(x))) for x in paths]


def weights(folder: Path) -> Any:
    """Read every tensor of every weight file."""
    from tempseg_jax.models.weights import files

    result = []
    for path in sorted(folder.iterdir()):
        names = list(files.read_index(path).shapes)
        tensors = files.read_tensors(path, names)
        result.append([(name, _digest(tensor)) for name, tensor in tensors])
    return result


def archives(folder: Path) -> Any:
    """Read every member of every archive."""
    from tempseg_jax.data.sources import files

    result = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".zip":
            opened = files.ZipFiles(path, prefix="")
            result += [(name, opened.read(name)) for name in sorted(opened.names())]
        else:
            result += files.stream_tar(path, wanted=lambda name: True)
    return result


def mat(folder: Path) -> Any:
    """Read the labels of every file of SBD."""
    from tempseg_jax.data.sources import sbd

    paths = sorted(folder.iterdir())
    return [_digest(sbd._decode(x.read_bytes(), name=str(x))) for x in paths]


def dataset(folder: Path) -> Any:
    """Read every record of a prepared dataset."""
    from tempseg_jax.data import prepared

    metadata = prepared.read_metadata(folder)
    splits = sorted(metadata["sizes"])
    records = [list(prepared.Examples(folder, expression=x)) for x in splits]
    return metadata, records


def text_files(folder: Path) -> Any:
    """Read the config and the metrics of a workdir."""
    from tempseg_jax.workdir import metrics_writer, saved_config

    config = saved_config.read_config(folder)
    return config.to_dict(), metrics_writer.read_metrics(folder)


def checkpoint(folder: Path) -> Any:
    """Load the best checkpoint of a workdir, as every prediction does."""
    import jax

    import tempseg_jax

    predictor = tempseg_jax.load(folder)
    leaves = jax.tree.leaves(predictor.variables)
    model = (predictor.class_names, predictor.palette.tolist(), predictor.segmenter)
    return predictor.step, model, [_digest(leaf) for leaf in leaves]


def _digest(array: Any) -> str:
    array = np.ascontiguousarray(array)
    return hashlib.sha256(array.tobytes()).hexdigest() + f"{array.shape}{array.dtype}"
