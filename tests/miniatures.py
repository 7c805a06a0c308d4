"""Tiny datasets in the formats of the published ones."""

import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from tempseg_jax.data import labels


def jpeg(seed=0, *, height=20, width=30):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def png(array, *, palette=False):
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(labels.voc_palette(256).tobytes())
    return encoded(picture, "png")


def encoded(image, kind):
    """Return an array or a Pillow image as a file of this kind, such as tiff."""
    stream = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(stream, kind)
    return stream.getvalue()


def mask(seed=0, *, height=20, width=30, values=(0, 3, 20, 255)):
    random = np.random.default_rng(seed)
    return random.choice(np.array(values, np.uint8), (height, width))


def mat(array):
    stream = io.BytesIO()
    contents = {"GTcls": {"Segmentation": array, "Boundaries": 0}}
    scipy.io.savemat(stream, contents, do_compression=True)
    return stream.getvalue()


def voc_members(train, val, others=()):
    """Return {name: content} of VOC2012; the images `others` have no mask."""
    members = {
        "ImageSets/Segmentation/train.txt": "\n".join(train).encode() + b"\n",
        "ImageSets/Segmentation/val.txt": "\n".join(val).encode() + b"\n",
    }
    for seed, id_ in enumerate([*train, *val, *others]):
        members[f"JPEGImages/{id_}.jpg"] = jpeg(seed)
        if id_ not in others:
            members[f"SegmentationClass/{id_}.png"] = png(mask(seed), palette=True)
    return members


def sbd_members(train, val):
    """Return {name: content} of the folder `dataset` of SBD."""
    members = {
        "train.txt": "\n".join(train).encode(),
        "val.txt": "\n".join(val).encode(),
    }
    for seed, id_ in enumerate([*train, *val]):
        members[f"cls/{id_}.mat"] = mat(mask(100 + seed, values=(0, 7, 20)))
    return members


def cityscapes_members(ids):
    """Return {name: content} of the image zip and of the label zip.

    Args:
        ids: {split: ids}.
    """
    images, annotations = {}, {}
    for split, names in ids.items():
        for seed, id_ in enumerate(names):
            city = id_.split("_")[0]
            image = np.full((16, 32, 3), seed, np.uint8)
            label = mask(seed, height=16, width=32, values=(0, 7, 8, 33, 10))
            start = f"{split}/{city}/{id_}"
            images[f"leftImg8bit/{start}_leftImg8bit.png"] = png(image)
            annotations[f"gtFine/{start}_gtFine_labelIds.png"] = png(label)
            annotations[f"gtFine/{start}_gtFine_polygons.json"] = b"{}"
    return images, annotations


def write_folder(root, members):
    for name, data in members.items():
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tar(path, members, *, prefix="", mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
