import numpy as np

from tempseg_jax.data import buckets


def test_sides_are_rounded_up_to_128():
    sizes = {(375, 500): 9, (500, 375): 8, (128, 129): 1}
    assert buckets.plan(sizes) == [(128, 256), (384, 512), (512, 384)]


def test_more_than_four_shapes_are_merged_with_the_fewest_padding_pixels():
    sizes = {(384, 512): 500, (512, 384): 400, (512, 512): 300, (128, 128): 200}
    plan = buckets.plan(sizes | {(384, 384): 3, (256, 512): 4})
    assert plan == [(128, 128), (384, 512), (512, 384), (512, 512)]


def test_every_size_fits_into_one_of_at_most_four_shapes():
    random = np.random.default_rng(0)
    for _ in range(5):
        sizes = {tuple(map(int, s)): 1 for s in random.integers(1, 900, (30, 2))}
        shapes = buckets.plan(sizes)
        assert len(shapes) <= 4
        for size in sizes:
            shape = buckets.choose(size, shapes)
            assert shape in shapes and shape[0] >= size[0] and shape[1] >= size[1]


def test_a_size_larger_than_all_shapes_is_rounded():
    assert buckets.choose((300, 10), []) == (384, 128)
