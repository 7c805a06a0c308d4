"""Load pretrained weights into the variables of a segmenter."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tempseg_jax.models.weights import catalog
from tempseg_jax.models.weights.files import Index, read_index, read_tensors
from tempseg_jax.models.weights.layouts import Layout, Row
from tempseg_jax.models.weights.report import LoadReport, describe_preprocessing
from tempseg_jax.models.weights.sources import LocalFile

Variables = dict[str, Any]  # of Linen: {"params": ..., "batch_stats": ...}, nested


def check_fits(
    variables: Variables,
    source: str,
    *,
    segmenter_name: str,
    missing: tuple[str, ...],
) -> None:
    """Check what `load_pretrained` can check without a download and without weights.

    Args:
        variables: As for `load_pretrained`; only their shapes are used.
        source: As for `load_pretrained`, and so are the other arguments.
        segmenter_name: The key of `SEGMENTERS` that the variables belong to.
        missing: Prefixes of tensor names that may be missing from the file.

    Raises:
        ValueError: If the weights are not those of this network.
    """
    location, layout, _ = catalog.resolve(source)
    fresh = flatten_dict(variables, sep="/")
    _check_network(fresh, source, layout, segmenter_name)
    _check_prefixes(missing, layout)
    if isinstance(location, LocalFile):
        _checked_rows(location.fetch(), fresh, layout, missing)


def load_pretrained(
    variables: Variables,
    source: str,
    *,
    segmenter_name: str,
    missing: tuple[str, ...],
) -> tuple[Variables, LoadReport]:
    """Replace freshly initialized variables by a file's tensors, as float32.

    Args:
        variables: The segmenter's variables as `init` returns them; not modified.
        source: A key of `PRETRAINED` or a path to a .safetensors or .h5 file.
        segmenter_name: The key of `SEGMENTERS` that the variables belong to.
        missing: Prefixes of tensor names in the file. Tensors with these prefixes may
            be missing from the file; their variables keep their initial values.

    Raises:
        ValueError: If the source is unknown, belongs to another architecture or cannot
            be downloaded, or if a tensor is missing, has another shape, belongs to a
            deeper network or is not finite.
    """
    location, layout, preprocessing = catalog.resolve(source)
    fresh = flatten_dict(variables, sep="/")
    _check_network(fresh, source, layout, segmenter_name)
    _check_prefixes(missing, layout)
    path = location.fetch()
    index, needed = _checked_rows(path, fresh, layout, missing)
    rows = {row.file: row for row in needed if row.file in index.shapes}
    unused = tuple(name for name in index.shapes if name not in rows)
    loaded = {}
    for name, tensor in read_tensors(path, rows):
        row = rows[name]
        shape = fresh[row.linen].shape
        loaded[row.linen] = np.ascontiguousarray(
            row.arrangement.from_file(tensor, shape)
        )
    report = LoadReport(
        origin=f"{path} ({layout.title}; {describe_preprocessing(preprocessing)})",
        loaded=tuple(name for name in fresh if name in loaded),
        fresh=tuple(name for name in fresh if name not in loaded),
        unused=unused,
    )
    return unflatten_dict(fresh | loaded, sep="/"), report


def _checked_rows(
    path: Path, fresh: dict[str, Any], layout: Layout, missing: tuple[str, ...]
) -> tuple[Index, list[Row]]:
    """Return the tensors of a file and the rows to load, which are checked."""
    index = read_index(path)
    needed = _needed_rows(layout, fresh, index)
    _check_file(path, index, layout, needed, missing)
    _check_shapes(path, index, fresh, layout, needed)
    return index, needed


def _needed_rows(layout: Layout, fresh: dict[str, Any], index: Index) -> list[Row]:
    """Return the rows to load.

    The scores of a file are left out, and start at zero, if they are of another number
    of classes, or if the network does not have all other layers of the file's head.
    """
    rows = [row for row in layout.rows if row.linen in fresh]
    if not layout.scores:
        return rows
    foreign = {_module(row) for row in layout.rows if row.linen not in fresh}

    def fits(row: Row) -> bool:
        expected = row.arrangement.file_shape(fresh[row.linen].shape)
        shape = index.shapes.get(row.file, expected)
        return _module(row) not in foreign and shape[0] == expected[0]

    return [row for row in rows if not row.file.startswith(layout.scores) or fits(row)]


def _module(row: Row) -> str:
    return row.linen.split("/")[1]


def _check_network(
    fresh: dict[str, Any], source: str, layout: Layout, segmenter_name: str
) -> None:
    """Raise ValueError, before any download, if the weights do not fit the network."""
    fitting = (layout.segmenter, *layout.parts)
    if segmenter_name not in fitting:
        raise ValueError(
            f"model.pretrained={source!r} ({layout.title}) fits model.name="
            f"{' or '.join(map(repr, fitting))}, not {segmenter_name!r}; change one of "
            "the two"
        )
    shape = fresh[layout.rows[0].linen].shape
    if shape != layout.first_kernel:
        raise ValueError(
            f"model.pretrained={source!r} fits only the published width, with a first "
            f"kernel of shape {layout.first_kernel}, but this network's has shape "
            f"{shape}; set model.width=1 or model.pretrained=''"
        )


def _check_prefixes(missing: tuple[str, ...], layout: Layout) -> None:
    for prefix in missing:
        if not any(row.file.startswith(prefix) for row in layout.rows):
            raise ValueError(
                f"model.pretrained_missing has {prefix!r}, but no tensor name of "
                f"{layout.title} starts with it; names look like "
                f"{layout.rows[0].file!r}"
            )


def _check_file(
    path: Path,
    index: Index,
    layout: Layout,
    needed: list[Row],
    missing: tuple[str, ...],
) -> None:
    """Raise ValueError if a tensor is missing or belongs to a deeper network."""
    absent = [row.file for row in needed if row.file not in index.shapes]
    absent = [name for name in absent if not name.startswith(missing)]
    if absent:
        raise ValueError(
            f"{path} does not have the tensors {_list_names(absent)} of "
            f"{layout.title}; if that is intended, add prefixes of their names to "
            "model.pretrained_missing"
        )
    known = {row.file for row in layout.rows}
    extra = [n for n in index.shapes if n not in known and re.match(layout.backbone, n)]
    if extra:
        raise ValueError(
            f"{path} has the tensors {_list_names(extra)}, which {layout.title} does "
            "not have; the file holds the weights of another network"
        )


def _check_shapes(
    path: Path,
    index: Index,
    fresh: dict[str, Any],
    layout: Layout,
    needed: list[Row],
) -> None:
    for row in needed:
        expected = row.arrangement.file_shape(fresh[row.linen].shape)
        shape = index.shapes.get(row.file, expected)
        if shape != expected:
            raise ValueError(
                f"{path}: {row.file} has the shape {shape}, not {expected} as in "
                f"{layout.title}; the file holds the weights of another network"
            )


def _list_names(names: list[str]) -> str:
    more = f" and {len(names) - 12} more tensors" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more
