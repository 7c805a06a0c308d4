"""Report of which tensors were loaded from a weight file."""

import re
from collections import Counter
from typing import NamedTuple

from tempseg_jax.models.preprocessing import Preprocessing


class LoadReport(NamedTuple):
    """Which variables were loaded and which were not; `str` gives a table."""

    origin: str  # the file, its layout and its preprocessing
    loaded: tuple[str, ...]  # paths of variables
    fresh: tuple[str, ...]  # paths of variables that keep their initial values
    unused: tuple[str, ...]  # names of tensors in the file

    def __str__(self) -> str:
        """Return the table, with one row per part of the network."""
        loaded, fresh = (Counter(map(_part, n)) for n in (self.loaded, self.fresh))
        parts = sorted(loaded | fresh)
        width = max(map(len, parts))
        rows = [f"  {p:<{width}}  {loaded[p]:>6}  {fresh[p]:>5}" for p in parts]
        modules = dict.fromkeys(name.split("/", 1)[1] for name in self.fresh)
        layers = dict.fromkeys(name.rpartition("/")[0] for name in modules)
        counts = Counter(map(_group, self.unused))
        unused = (f"{name} ({n})" if n > 1 else name for name, n in counts.items())
        return "\n".join(
            [
                f"pretrained: {self.origin}",
                f"  {'tensors of':<{width}}  loaded  fresh",
                *rows,
                f"  {'total':<{width}}  {len(self.loaded):>6}  {len(self.fresh):>5}",
                f"  freshly initialized: {', '.join(layers) or 'none'}",
                f"  unused in the file: {', '.join(unused) or 'none'}",
            ]
        )


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Return a short text such as "input BGR minus (103.94, 116.78, 123.68)"."""
    mean, std = (
        ", ".join(f"{value:.2f}" for value in values)
        for values in (preprocessing.mean, preprocessing.std)
    )
    divided = "" if set(preprocessing.std) == {1.0} else f", divided by ({std})"
    return f"input {preprocessing.channel_order} minus ({mean}){divided}"


def _group(name: str) -> str:
    """Return the entry under which an unused tensor is counted.

    The 53 tensors "bn....num_batches_tracked" are one entry, and so are the tensors of
    a block of a stage that the network does not have.
    """
    name = re.sub(r".*\.(?=num_b)", "*.", name)
    return re.sub(r"^(conv\d_block\d)_.*", r"\1_*", name)


def _part(path: str) -> str:
    """Return the top-level module of a path; within the backbone, its submodule."""
    _, *modules, _ = path.split("/")
    return "/".join(modules[:2]) if modules[0] == "backbone" else modules[0]
