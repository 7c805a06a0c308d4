"""Say which files of a folder no split uses, and why."""

import collections
from collections.abc import Collection, Mapping
from pathlib import Path

from tempseg_jax.data.image_reader import ENDINGS
from tempseg_jax.data.sources.folder_layouts import (
    Pairs,
    masks_by_stem,
    paths_by_stem,
)
from tempseg_jax.io.folder_files import files_in, kinds_of


def left_out(splits: Mapping[str, Pairs]) -> tuple[str, ...]:
    """Return sentences on the files of the folders that no split uses."""
    folders = {folder for x in splits.values() for folder in (x.images, x.masks)}
    notes = [_other_files(folder) for folder in sorted(folders)]
    used: dict[tuple[Path, Path], set[str]] = collections.defaultdict(set)
    for x in splits.values():
        stems = paths_by_stem(x.images) if x.stems is None else x.stems
        used[x.images, x.masks].update(stems)
    for (images, masks), stems in used.items():
        unlisted = sorted(paths_by_stem(images).keys() - stems)
        if unlisted:
            notes.append(
                f"{images}: {len(unlisted)} images are left out, which are in no list,"
                f" such as {unlisted[0]}"
            )
        notes.append(_masks_without_image(masks, {*stems, *unlisted}))
    return tuple(note for note in notes if note)


def _other_files(folder: Path) -> str:
    others = [
        path
        for path in files_in(folder)
        if path.suffix.lower() not in ENDINGS or not path.is_file()
    ]
    if not others:
        return ""
    return (
        f"{folder}: {len(others)} files are left out, which are no images in a format"
        f" that is read: {kinds_of(others)}, such as {others[0].name}"
    )


def _masks_without_image(masks: Path, stems: Collection[str]) -> str:
    by_stem = masks_by_stem(masks, image_stems=stems)
    everything = {path for paths in by_stem.values() for path in paths}
    matched = {path for stem in stems for path in by_stem.get(stem, ())}
    lonely = sorted(everything - matched)
    if not lonely:
        return ""
    return (
        f"{masks}: {len(lonely)} masks are left out, which have no image, such as"
        f" {lonely[0].name}"
    )
