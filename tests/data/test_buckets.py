import pytest

from tempseg_jax.data import buckets


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((375, 500), (384, 512)),
        ((128, 129), (128, 256)),
        ((1, 1), (128, 128)),
        ((1024, 2048), (1024, 2048)),
    ],
)
def test_the_sides_of_a_canvas_are_the_images_rounded_up_to_128(size, canvas):
    assert buckets.canvas(size) == canvas
