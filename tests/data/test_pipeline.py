import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from tempseg_jax.data import codec, pipeline
from tempseg_jax.data.catalog import Split
from tempseg_jax.data.sources import scenes
from tempseg_jax.types import IGNORE_LABEL
from tests.data.training_batches import training_batches


def make_split(records):
    names, palette = scenes.Scenes().classes()
    return Split("tiny", "train", records, names, palette)


def make_record(index, *, height=24, width=40):
    image = np.full((height, width, 3), index, np.uint8)
    image[: height // 2] = 200
    label = np.full((height, width), index % 8, np.uint8)
    return {
        "id": f"r{index}",
        "image": codec.encode_image(image),
        "label": codec.encode_label(label),
    }


@pytest.fixture(scope="module")
def split():
    return make_split([make_record(i) for i in range(10)])


def assert_equal(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_a_batch_is_uint8_images_and_labels(split):
    (batch,) = training_batches(split, 1)
    assert batch["image"].shape == (4, 16, 16, 3)
    assert batch["label"].shape == (4, 16, 16)
    assert batch["image"].dtype == batch["label"].dtype == np.uint8


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(split, workers):
    assert_equal(
        training_batches(split, 8), training_batches(split, 8, num_workers=workers)
    )


def test_batches_do_not_depend_on_the_cache(split):
    nbytes = 24 * 40 * 4
    expected = training_batches(split, 12)
    assert_equal(expected, training_batches(split, 12, cache_bytes=1 << 30))
    assert_equal(
        expected, training_batches(split, 12, cache_bytes=3 * nbytes, num_workers=2)
    )


def test_batches_of_one_image_follow_the_order_of_larger_ones(split):
    ones = training_batches(split, 8, batch_size=1)
    for step, batch in enumerate(training_batches(split, 2)):
        four = ones[4 * step : 4 * step + 4]
        for key in ("image", "label"):
            joined = np.concatenate([one[key] for one in four])
            np.testing.assert_array_equal(joined, batch[key])


def test_batches_after_starting_at_a_step_equal_those_of_one_run(split):
    # Ten images in batches of four: epochs end within batches 2 and 7.
    whole = training_batches(split, 10)
    for start in (1, 2, 3, 7, 9):
        rest = training_batches(split, 10 - start, start_step=start, num_workers=2)
        assert_equal(whole[start:], rest)


def test_the_shares_of_two_processes_are_the_batches_of_one(split):
    whole = training_batches(split, 6)
    parts = [
        training_batches(split, 6, process_index=i, process_count=2, num_workers=i)
        for i in range(2)
    ]
    for key in ("image", "label"):
        for step, batch in enumerate(whole):
            shares = [part[step][key] for part in parts]
            np.testing.assert_array_equal(np.concatenate(shares), batch[key])


def test_every_epoch_has_each_image_once_in_a_new_order():
    # Without scaling, the color of the lower half identifies the record.
    split = make_split([make_record(i, height=16, width=16) for i in range(10)])
    stream = training_batches(
        split, 10, batch_size=2, min_scale=1.0, max_scale=1.0, photometric=False
    )
    order = np.concatenate([batch["image"][:, -1, 0, 0] for batch in stream])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert list(order[:10]) != list(order[10:])


def test_another_seed_yields_other_batches(split):
    (a,), (b,) = training_batches(split, 1), training_batches(split, 1, seed=4)
    assert not np.array_equal(a["image"], b["image"])


def test_a_batch_size_that_is_no_multiple_of_the_processes_is_refused(split):
    with pytest.raises(ValueError, match="batch_size=3"):
        training_batches(split, 1, batch_size=3, process_count=2)


@pytest.mark.parametrize(
    "scales", [(2.0, 0.5), (0.0, 1.0), (-1.0, 1.0), (1.0, np.inf), (np.nan, 1.0)]
)
def test_invalid_scales_are_refused(split, scales):
    low, high = scales
    message = f"data.min_scale={low}, data.max_scale={high}: must be finite"
    with pytest.raises(ValueError, match=message):
        training_batches(split, 1, min_scale=low, max_scale=high)


@pytest.fixture
def broken():
    records = [make_record(i, height=16, width=16) for i in range(4)]
    records[2] = records[2] | {"image": records[2]["image"][:60]}
    return make_split(records)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_undecodable_image_is_named_and_stops_the_run(broken, workers):
    with pytest.raises(ValueError, match=r"r2.*truncated.*on_error=skip"):
        training_batches(broken, 3, num_workers=workers)


def test_an_image_with_another_size_than_its_label_is_named():
    record = make_record(0, height=24, width=40)
    record["label"] = make_record(0, height=40, width=24)["label"]
    split = make_split([record])
    with pytest.raises(ValueError, match=r"r0: .* to 40x24 .* label has 24x40; store"):
        training_batches(split, 1)
    with pytest.raises(ValueError, match="no image can be decoded"):
        training_batches(split, 1, on_error="skip")


def test_with_skip_the_next_image_replaces_an_undecodable_one(broken):
    stream = training_batches(
        broken, 4, on_error="skip", min_scale=1.0, photometric=False
    )
    assert len(stream) == 4
    again = training_batches(
        broken, 4, on_error="skip", min_scale=1.0, photometric=False
    )
    assert_equal(stream, again)
    assert not any((batch["image"][:, -1, 0, 0] == 2).any() for batch in stream)


def test_skipping_is_an_error_if_no_image_can_be_decoded():
    record = make_record(0) | {"image": b"no image"}
    with pytest.raises(ValueError, match="no image can be decoded"):
        training_batches(make_split([record, record]), 1, on_error="skip")


def evaluate(split, **changes):
    arguments = dict(batch_size=4, num_workers=0, process_index=0, process_count=1)
    return list(pipeline.eval_batches(split, **arguments | changes))


@pytest.fixture(scope="module")
def mixed():
    sizes = [(24, 40), (130, 20), (24, 41), (128, 128), (100, 129), (24, 40), (3, 5)]
    return make_split(
        [make_record(i, height=h, width=w) for i, (h, w) in enumerate(sizes)]
    )


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_evaluation_yields_each_image_exactly_once(mixed, batch_size):
    ids = [id_ for b in evaluate(mixed, batch_size=batch_size) for id_ in b["id"]]
    assert sorted(filter(None, ids)) == [f"r{i}" for i in range(7)]


def test_evaluation_batches_have_few_shapes_and_void_padding(mixed):
    by_id = {record["id"]: record for record in mixed.examples}
    shapes = set()
    for batch in evaluate(mixed, batch_size=2, num_workers=2):
        shapes.add(batch["image"].shape)
        for i, id_ in enumerate(batch["id"]):
            height, width = batch["size"][i]
            label = batch["label"][i]
            assert (label[height:] == IGNORE_LABEL).all()
            assert (label[:, width:] == IGNORE_LABEL).all()
            if id_:
                image = codec.decode_image(by_id[id_]["image"], name=id_)
                np.testing.assert_array_equal(batch["image"][i, :height, :width], image)
                assert (label[:height, :width] != IGNORE_LABEL).all()
            else:
                assert height == width == 0
    assert shapes == {(2, 128, 128, 3), (2, 256, 128, 3), (2, 128, 256, 3)}


def test_images_of_many_sizes_do_not_all_wait_in_memory():
    records = [make_record(i, height=128 * i + 1, width=2) for i in range(40)]
    decoded = []

    class Counted(Sequence):
        def __len__(self):
            return len(records)

        def __getitem__(self, index):
            decoded.append(index)
            return records[index]

    split = dataclasses.replace(make_split(records), examples=Counted())
    batches = pipeline.eval_batches(
        split, batch_size=2, num_workers=0, process_index=0, process_count=1
    )
    ids = []
    for batch in batches:
        ids += filter(None, batch["id"])
        assert len(decoded) - len(ids) <= 8 * 2 + 2  # Grain reads two at its start
    assert ids == [f"r{i}" for i in range(40)]


def test_images_of_a_canvas_with_smaller_batches_do_not_wait_for_others(mixed):
    sizes = {(256, 128): 1}
    batches = evaluate(mixed, batch_size_of=lambda canvas: sizes.get(canvas, 4))
    assert [batch["id"] for batch in batches][:2] == [["r1"], ["r0", "r2", "r3", "r5"]]
    assert sum(bool(id_) for batch in batches for id_ in batch["id"]) == 7


def test_an_undecodable_image_stops_the_evaluation_with_the_remedy(broken):
    with pytest.raises(ValueError, match=r"r2.*truncated.*skips no image: repair the"):
        evaluate(broken)


def test_processes_divide_the_evaluation(mixed):
    parts = [evaluate(mixed, process_index=i, process_count=2) for i in range(2)]
    ids = [{id_ for b in part for id_ in b["id"] if id_} for part in parts]
    assert ids[0] == {"r0", "r2", "r4", "r6"} and ids[1] == {"r1", "r3", "r5"}
