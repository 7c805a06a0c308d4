"""Image files that programs read differently, written by `write`."""

import struct
import zlib

import cv2
import numpy as np
from PIL import Image

READABLE = (
    *("gray.jpg", "gray.png", "bits.png", "palette.png", "palette-alpha.png"),
    *("gray-alpha.png", "alpha.png", "colorkey.png", "gray16.png", "rgb16.png"),
    *("rgba16.png", "gray16.tif", "rgb.tif", "turned.tif", "rgb.bmp", "alpha.webp"),
    *("turned.webp", "progressive.jpg", "several.jpg", "trailer.jpg", "tiny.png"),
    *("rgb.png", "badexif.jpg", "xmp.jpg", "video.jpg", "thumbnail.jpg"),
    *(f"turned{i}.jpg" for i in range(1, 9)),
    *(f"turned{i}.png" for i in range(1, 9)),
)
UNREADABLE = (
    *("cmyk.jpg", "float.tif", "lab.tif", "picture.gif", "empty.png", "text.png"),
    *("truncated.jpg", "truncated.png", "header.jpg", "chunk.png", "idat.png"),
    *("bomb.png", "cut-after-thumbnail.jpg"),
)


def write(folder):
    """Write every file; pixels are a gradient with noise, of 37 x 53 pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:37, :53]
    rgb = np.stack([x * 4, y * 6, (x + y) * 2], axis=-1) + rng.integers(
        0, 20, (37, 53, 1)
    )
    rgb = rgb.astype(np.uint8)
    gray = rgb[..., 0]
    alpha = (x * 4).astype(np.uint8)
    deep = rgb.astype(np.uint16) << 8 | rng.integers(0, 256, rgb.shape, np.uint16)
    picture = Image.fromarray(rgb)

    def save(name, image, **options):
        image.save(folder / name, **options)

    save("gray.jpg", Image.fromarray(gray))
    save("gray.png", Image.fromarray(gray))
    save("bits.png", Image.fromarray(gray > 99))
    palette = picture.quantize(16)
    save("palette.png", palette)
    save("palette-alpha.png", palette, transparency=bytes(range(0, 256, 16)))
    save("gray-alpha.png", Image.fromarray(np.stack([gray, alpha], -1)))
    rgba = np.concatenate([rgb, alpha[..., None]], -1)
    save("alpha.png", Image.fromarray(rgba))
    save("alpha.webp", Image.fromarray(rgba), lossless=True)
    save("colorkey.png", picture, transparency=tuple(rgb[3, 5].tolist()))
    save("gray16.png", Image.fromarray(deep[..., 0]))
    save("gray16.tif", Image.fromarray(deep[..., 0]))
    cv2.imwrite(str(folder / "rgb16.png"), deep)
    cv2.imwrite(
        str(folder / "rgba16.png"), np.dstack([deep, alpha.astype(np.uint16) << 8])
    )
    save("rgb.tif", picture)
    save("rgb.bmp", picture)
    save("progressive.jpg", picture, progressive=True)
    save("several.jpg", picture, format="MPO", save_all=True, append_images=[picture])
    save("tiny.png", Image.fromarray(rgb[:1, :1]))
    cv2.imwrite(str(folder / "rgb.png"), rgb)
    _turned(folder, picture, save)
    jpeg = (folder / "turned6.jpg").read_bytes()
    (folder / "trailer.jpg").write_bytes(jpeg + b"\0" * 100)
    (folder / "video.jpg").write_bytes(jpeg + rng.bytes(200_000))
    plain = (folder / "gray.jpg").read_bytes()
    inside = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0" + plain  # with its end marker
    segment = b"\xff\xe1" + struct.pack(">H", len(inside) + 2) + inside
    (folder / "thumbnail.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    (folder / "cut-after-thumbnail.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:-400])
    (folder / "badexif.jpg").write_bytes(
        jpeg.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x63")
    )
    save("xmp.jpg", picture, xmp=b'<x xmlns:tiff="t" tiff:Orientation="6"/>')
    _broken(folder, picture, save)


def _turned(folder, picture, save):
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        save(f"turned{turn}.jpg", picture, exif=exif, quality=90)
        save(f"turned{turn}.png", picture, exif=exif)
    save("turned.webp", picture, exif=exif, lossless=True)
    save("turned.tif", picture, tiffinfo={0x0112: 6})
    # After the image data, where a reader of the header does not see it.
    data = (folder / "turned6.png").read_bytes()
    start = data.index(b"eXIf") - 4
    (length,) = struct.unpack_from(">I", data, start)
    chunk, rest = data[start : start + length + 12], data[:start]
    rest += data[start + length + 12 : -12]
    (folder / "turned6.png").write_bytes(rest + chunk + data[-12:])


def _broken(folder, picture, save):
    save("cmyk.jpg", picture.convert("CMYK"))
    save("float.tif", picture.convert("F"))
    save("lab.tif", Image.new("LAB", (4, 4)))
    save("picture.gif", picture)
    jpeg = (folder / "progressive.jpg").read_bytes()
    png = (folder / "rgb.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_bytes(b"no image")
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "truncated.png").write_bytes(png[: len(png) // 2])
    (folder / "header.jpg").write_bytes(jpeg[:20])
    (folder / "chunk.png").write_bytes(
        png[:33] + struct.pack(">I4s4sI", 4, b"tEXt", b"a\0bc", 0) + png[33:]
    )
    damaged = bytearray(png)
    damaged[png.index(b"IDAT") + 40] ^= 0xFF
    (folder / "idat.png").write_bytes(damaged)
    side = struct.pack(">2I", 40_000, 40_000)
    header = b"IHDR" + side + png[24:29]
    (folder / "bomb.png").write_bytes(
        png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    )
