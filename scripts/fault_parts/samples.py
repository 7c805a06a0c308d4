"""Small files of every format, and a dataset and training of a few seconds."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import scipy.io
from fault_parts import tiny
from PIL import Image
from safetensors.numpy import save_file

SIZE = 32  # pixels, of an image


def write(folder: Path) -> dict[str, Path]:
    """Write the samples; return a folder for each kind."""
    random = np.random.default_rng(0)
    folders = {}
    for kind in ("images", "masks", "weights", "archives", "mat", "dataset"):
        folders[kind] = folder / kind
        folders[kind].mkdir(parents=True)
    photo = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6  # orientation
    for name in ("a.jpg", "b.png", "c.png"):
        picture = Image.fromarray(photo)
        if name == "c.png":
            picture = picture.quantize(16)
        picture.save(folders["images"] / name, exif=exif)
    mask = random.integers(0, 3, (SIZE, SIZE), np.uint8)
    Image.fromarray(mask).save(folders["masks"] / "gray.png")
    palette = Image.fromarray(mask)
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(folders["masks"] / "palette.png")
    _weights(folders["weights"], random)
    _archives(folders["archives"], [folders["images"], folders["masks"]])
    for compressed in (False, True):
        path = folders["mat"] / f"{compressed}.mat"
        fields = {"GTcls": {"Segmentation": mask, "Boundaries": 0}}
        scipy.io.savemat(path, fields, do_compression=compressed)
    _dataset(folders["dataset"], random)
    return folders


def training(dataset: Path, data_dir: Path) -> list[str]:
    """Return the flags of a training that saves, evaluates and ends within seconds."""
    settings = {
        "data.name": "folder",
        "data.manual_dir": dataset,
        "data.data_dir": data_dir,
        "data.batch_size": 4,
        "data.crop_size": SIZE,
        "data.num_workers": 0,
        "model.name": tiny.NAME,
        "model.discriminator": tiny.NAME,
        "steps": 8,
        "log_every_steps": 1,
        "save_every_steps": 2,
        "evaluate_every_epochs": 2.0,
        "eval_batch_size": 2,
        "optimizer.learning_rate_g": 0.1,
    }
    config = Path(__file__).parents[2] / "configs" / "demo.py"
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return [f"--config={config}", *flags]


def texts(workdir: Path) -> Path:
    """Return a folder with the text files of a workdir."""
    folder = workdir.with_name("texts")
    folder.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(workdir / name, folder)
    return folder


def _weights(folder: Path, random: np.random.Generator) -> None:
    tensors = {
        f"conv{i}/{role}": random.normal(size=shape).astype(np.float32)
        for i in range(3)
        for role, shape in (("kernel", (3, 3, 4, 4)), ("bias", (4,)))
    }
    save_file(
        {name.replace("/", "."): x for name, x in tensors.items()},
        folder / "a.safetensors",
    )
    with h5py.File(folder / "b.h5", "w") as file:
        for name, tensor in tensors.items():
            layer, role = name.split("/")
            file[f"{layer}/{layer}/{role}:0"] = tensor


def _archives(folder: Path, sources: list[Path]) -> None:
    files = [path for source in sources for path in sorted(source.iterdir())]
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    for name, mode in (("b.tar", "w"), ("c.tgz", "w:gz")):
        with tarfile.open(folder / name, mode) as archive:
            for path in files:
                info = tarfile.TarInfo(path.name)
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))


def _dataset(folder: Path, random: np.random.Generator) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for split, numbers in (("train", range(8)), ("val", range(8, 11))):
        names = [f"x{number}" for number in numbers]
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            mask = (image[..., 0] > 127).astype(np.uint8)
            Image.fromarray(image).save(folder / "images" / f"{name}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
