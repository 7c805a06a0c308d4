"""What became of every tensor when weights were loaded."""

import re
from collections import Counter
from typing import NamedTuple

from tempseg_jax.models.preprocessing import Preprocessing


class LoadReport(NamedTuple):
    """Names of all tensors, of the network and of the file; `str` is the table."""

    origin: str  # the file and its conventions
    loaded: tuple[str, ...]  # paths in the variables
    fresh: tuple[str, ...]  # paths in the variables: as they were initialized
    unused: tuple[str, ...]  # names in the file

    def __str__(self) -> str:
        """Return the table, a row for each part of the network."""
        loaded, fresh = (Counter(map(_part, n)) for n in (self.loaded, self.fresh))
        parts = sorted(loaded | fresh)
        width = max(map(len, parts))
        rows = [f"  {p:<{width}}  {loaded[p]:>6}  {fresh[p]:>5}" for p in parts]
        modules = dict.fromkeys(name.split("/", 1)[1] for name in self.fresh)
        layers = dict.fromkeys(name.rpartition("/")[0] for name in modules)
        # A counter of batches for each of 53 BatchNorms is one thing to a reader.
        counts = Counter(re.sub(r".*\.(?=num_b)", "*.", name) for name in self.unused)
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


def describe(preprocessing: Preprocessing) -> str:
    """Return a preprocessing in words."""
    mean, std = (
        ", ".join(f"{value:.2f}" for value in values)
        for values in (preprocessing.mean, preprocessing.std)
    )
    divided = "" if set(preprocessing.std) == {1.0} else f", over ({std})"
    return f"input {preprocessing.channel_order} minus ({mean}){divided}"


def _part(path: str) -> str:
    """Return the top-level module of a path; in the backbone the one below it."""
    _, *modules, _ = path.split("/")
    return "/".join(modules[:2]) if modules[0] == "backbone" else modules[0]
