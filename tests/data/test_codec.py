import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tempseg_jax.data import codec
from tests import miniatures


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (375, 500)])
def test_an_encoded_label_decodes_to_itself_and_is_a_valid_png(shape):
    label = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = codec.encode_label(label)
    np.testing.assert_array_equal(codec.decode_label(data, name="label"), label)
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data))), label)
    assert codec.label_size(data) == shape


def test_a_damaged_label_is_named():
    data = codec.encode_label(np.zeros((9, 9), np.uint8))
    for broken in (data[:-30], b"", b"x" * 99, data.replace(data[45:50], b"12345")):
        with pytest.raises(codec.BadFile, match="here: cannot be decoded"):
            codec.decode_label(broken, name="here")


def test_images_are_decoded_to_rgb():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    decoded = codec.decode_image(codec.encode_image(image), name="red")
    np.testing.assert_array_equal(decoded, image)


def test_a_gray_image_gets_three_channels():
    data = cv2.imencode(".jpg", np.full((8, 8), 99, np.uint8))[1].tobytes()
    assert codec.decode_image(data, name="gray").shape == (8, 8, 3)


@pytest.mark.parametrize("data", [b"", b"no image", miniatures.jpeg()[:-300]])
def test_an_undecodable_image_is_named(data):
    with pytest.raises(codec.BadFile, match="here: "):
        codec.decode_image(data, name="here")
    with pytest.raises(codec.BadFile, match="here: "):
        codec.to_stored(data, name="here")


def test_exif_rotation_is_applied_to_size_and_pixels():
    picture = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    picture.save(stream, "jpeg", exif=exif)
    size = codec.to_stored(stream.getvalue(), name="photograph")[1]
    assert size == (20, 10)
    assert codec.decode_image(stream.getvalue(), name="photograph").shape[:2] == size


def test_bytes_after_the_end_of_a_jpeg_are_ignored():
    data = miniatures.jpeg() + b"\0" * 100
    assert codec.to_stored(data, name="image")[1] == (20, 30)
    assert codec.decode_image(data, name="image").shape == (20, 30, 3)


def test_a_too_large_image_is_refused_because_of_its_header(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(codec.BadFile, match="bomb: the image is too large"):
        codec.to_stored(miniatures.jpeg(), name="bomb")


def test_masks_are_read_as_indices_or_colors():
    index = miniatures.mask()
    for palette in (False, True):
        data = miniatures.png(index, palette=palette)
        np.testing.assert_array_equal(codec.read_mask(data, name="mask"), index)
    bits = miniatures.png(index > 0)
    np.testing.assert_array_equal(codec.read_mask(bits, name="mask"), index > 0)
    colors = np.stack([index] * 3, axis=-1)
    data = miniatures.png(colors)
    np.testing.assert_array_equal(codec.read_mask(data, name="mask"), colors)


def test_the_first_of_several_pictures_in_a_jpeg_is_decoded():
    pictures = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    stream = io.BytesIO()
    pictures[0].save(stream, "MPO", save_all=True, append_images=pictures[1:])
    data = stream.getvalue()
    assert codec.to_stored(data, name="photograph")[1] == (20, 30)
    pixel = codec.decode_image(data, name="photograph")[5, 5]
    assert pixel[0] > 200 and pixel[2] < 50
