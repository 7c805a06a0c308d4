"""Images of a prediction: indexed PNGs, and overlays with a legend."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tempseg_jax.data.labels import color_labels
from tempseg_jax.io import atomic


def indexed(
    labels: UInt8[np.ndarray, "h w"], palette: UInt8[np.ndarray, "k 3"]
) -> Image.Image:
    """Return an indexed image: its pixels are the labels, its palette the colors."""
    image = Image.fromarray(labels)
    all_labels = np.arange(256, dtype=np.uint8)[None]
    image.putpalette(color_labels(all_labels, palette).tobytes())
    return image


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    *,
    palette: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the mean of the image and the colors of its labels.

    Pixels of a black class, as the background is in most palettes, stay as they are:
    with black, most of the image would only become dark.
    """
    colors = color_labels(labels, palette)
    mixed = (image.astype(np.uint16) + colors) // 2
    painted = colors.any(axis=-1, keepdims=True)
    return np.where(painted, mixed, image).astype(np.uint8)


def areas(
    labels: UInt8[np.ndarray, "h w"], class_names: tuple[str, ...]
) -> list[tuple[int, str, float]]:
    """Return (class, name, share of the pixels) of the classes present, largest first.

    The share is from 0 to 1.
    """
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    order = np.argsort(-counts, kind="stable")
    present = [int(k) for k in order if counts[k]]
    return [(k, class_names[k], float(counts[k] / labels.size)) for k in present]


def percent(share: float) -> str:
    """Format a share of the pixels; a class that is present is never "0.0 %"."""
    return f"{100 * share:.1f} %" if share >= 5e-4 else "< 0.1 %"


def with_legend(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt8[np.ndarray, "h w"],
    *,
    palette: UInt8[np.ndarray, "k 3"],
    class_names: tuple[str, ...],
) -> Image.Image:
    """Return the overlay, with a legend of the classes present and their areas."""
    rows = areas(labels, class_names)
    h, w = labels.shape
    size = max(11, min(h // 24, 64))  # of the font, in pixels
    font = ImageFont.load_default(size)
    texts = [f"{name}  {percent(share)}" for _, name, share in rows]
    step = round(1.6 * size)
    width = 3 * size + round(max(map(font.getlength, texts)))
    height = max(h, step * len(rows) + size)
    canvas = Image.new("RGB", (w + width, height), "white")
    canvas.paste(Image.fromarray(overlay(image, labels, palette=palette)), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, ((k, _, _), text) in enumerate(zip(rows, texts, strict=True)):
        top = size // 2 + i * step
        swatch = (w + size // 2, top, w + size // 2 + size, top + size)
        draw.rectangle(swatch, fill=tuple(palette[k].tolist()), outline="black")
        middle = (w + 2 * size, top + size // 2)
        draw.text(middle, text, fill="black", font=font, anchor="lm")
    return canvas


def save(image: Image.Image, path: Path) -> None:
    """Write an image atomically, as PNG or JPEG by its suffix.

    Raises:
        OSError: If the file cannot be written.
    """
    options = {} if path.suffix == ".png" else {"quality": 90}
    with atomic.replacing(path) as partial:
        image.save(partial, **options)
