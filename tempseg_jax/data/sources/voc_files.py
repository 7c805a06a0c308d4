"""Find the archives or unpacked folders of VOC 2012 and SBD."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tempseg_jax.data.sources.files import Files, FolderFiles, TarFiles
from tempseg_jax.data.sources.sbd import Sbd

ARCHIVE = "VOCtrainval_11-May-2012.tar"
AUG_FOLDER = "SegmentationClassAug"
_ROOT_IN_ARCHIVE = "VOCdevkit/VOC2012/"


@dataclasses.dataclass(frozen=True)
class VocFiles:
    """The files of VOC 2012, and the labels of SBD where they are available."""

    devkit: Files  # below VOCdevkit/VOC2012
    has_aug: bool  # whether SegmentationClassAug is among them
    sbd: Sbd | None


def find(folder: Path) -> VocFiles:
    """Return the unpacked or archived files of VOC 2012 in a folder.

    Raises:
        FileNotFoundError: If the folder does not exist or contains neither.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data.manual_dir={folder} does not exist; set it to the folder of"
            f" {ARCHIVE} or VOCdevkit"
        )
    for below in ("VOCdevkit/VOC2012", "VOC2012", "."):
        root = folder / below
        if (root / "JPEGImages").is_dir():
            folders = ["ImageSets/Segmentation", "JPEGImages", "SegmentationClass"]
            if (root / AUG_FOLDER).is_dir():
                devkit = FolderFiles(root, folders=(*folders, AUG_FOLDER))
                return VocFiles(devkit, True, None)
            # Beside JPEGImages, VOC2012 or VOCdevkit, depending on the given folder.
            places = (root, root.parent, root.parent.parent)
            devkit = FolderFiles(root, folders=tuple(folders))
            return VocFiles(devkit, False, _find_sbd(places))
    for archive in (folder / ARCHIVE, *sorted(folder.glob("VOCtrainval*.tar"))):
        if archive.is_file():
            devkit = TarFiles(archive, prefix=_ROOT_IN_ARCHIVE)
            return VocFiles(devkit, False, _find_sbd((folder,)))
    raise FileNotFoundError(
        f"data.manual_dir={folder} contains neither {ARCHIVE} nor"
        " VOCdevkit/VOC2012/JPEGImages; put one there, or leave data.manual_dir unset"
        " to download the archive"
    )


def _find_sbd(places: Sequence[Path]) -> Sbd | None:
    folders = (place for place in places if Sbd.is_in(place))
    return next((Sbd(folder) for folder in folders), None)
