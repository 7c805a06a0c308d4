import numpy as np
import pytest

from tempseg_jax.data import codec
from tempseg_jax.data.sources import folder_layouts, folder_masks
from tempseg_jax.data.sources.folder import Folder
from tempseg_jax.types import IGNORE_LABEL
from tests import miniatures

MASK = miniatures.png(miniatures.mask(values=(0, 1, 2, 11)))


def source(folder, **options):
    return Folder(manual_dir=str(folder), **options)


def listing(dataset):
    return {s: [e.id for e in dataset.entries(s)] for s in dataset.splits}


def only_label(dataset, split="train"):
    (entry,) = dataset.entries(split)
    return codec.decode_label(entry.load()["label"], name="label")


def write(root, *names, mask=MASK):
    for name in names:
        is_image = name.endswith(".jpg") or "images" in name
        data = miniatures.jpeg() if is_image else mask
        miniatures.write_folder(root, {name: data})


def test_the_segnet_layout_pairs_jpg_and_png_by_stem(tmp_path):
    write(
        tmp_path, "train/b.jpg", "train/a.jpg", "trainannot/a.png", "trainannot/b.png"
    )
    write(tmp_path, "val/c.jpg", "valannot/c.png")
    assert listing(source(tmp_path)) == {"train": ["a", "b"], "val": ["c"]}


def test_one_folder_per_split(tmp_path):
    write(tmp_path, "images/train/a.jpg", "masks/train/a.png")
    write(tmp_path, "images/val/b.jpeg", "masks/val/b.PNG", "images/val/notes.txt")
    assert listing(source(tmp_path)) == {"train": ["a"], "val": ["b"]}


def test_lists_of_stems_keep_their_order(tmp_path):
    write(tmp_path, *(f"images/{i}.jpg" for i in range(4)))
    write(tmp_path, *(f"masks/{i}.png" for i in range(4)))
    (tmp_path / "train.txt").write_text("3\n1.jpg\n")
    (tmp_path / "val.txt").write_text("0\n")
    assert listing(source(tmp_path)) == {"train": ["3", "1"], "val": ["0"]}


def test_a_stem_in_a_list_may_contain_a_dot(tmp_path):
    write(tmp_path, "images/f.01.jpg", "masks/f.01.png", "images/f.02.jpg")
    (tmp_path / "train.txt").write_text("f.01\n\nimages/f.02.jpg\n")
    assert listing(source(tmp_path)) == {"train": ["f.01", "f.02"]}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"train": "a\n", "val": "\n"},
            "val.txt is empty; write one stem per line, or",
        ),
        (
            {"train": "images/a.jpg masks/a.png"},
            "train.txt: .* more than one word; write",
        ),
        ({"train": "a\nb\na.jpg\n"}, "train.txt: 'a' occurs 2 times; keep one"),
        (
            {"train": "a\nb", "val": "b"},
            "val.txt: 'b' is also in train.txt .*remove it",
        ),
        ({"train": "a\nb", "test": "b"}, "test.txt: 'b' is also in train.txt"),
        ({}, "images: 'a' is the only image .* add an image, or write its stem into"),
    ],
)
def test_malformed_lists_of_stems_are_refused(tmp_path, lists, message):
    write(tmp_path, "images/a.jpg", "masks/a.png")
    if lists:
        write(tmp_path, "images/b.jpg", "masks/b.png")
    for split, text in lists.items():
        (tmp_path / f"{split}.txt").write_text(text)
    with pytest.raises(ValueError, match=f"^{tmp_path}/.*{message}"):
        source(tmp_path)


def test_a_list_of_one_image_is_a_split(tmp_path):
    write(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "train.txt").write_text("a")
    assert listing(source(tmp_path)) == {"train": ["a"]}


def test_without_lists_a_tenth_is_val_and_another_image_reassigns_at_most_one(tmp_path):
    write(tmp_path, *(f"images/{i}.jpg" for i in range(20)))
    write(tmp_path, *(f"masks/{i}.png" for i in range(20)))
    before = listing(source(tmp_path))
    assert len(before["val"]) == 2 and len(before["train"]) == 18
    assert not set(before["val"]) & set(before["train"])
    assert listing(source(tmp_path)) == before
    for i in range(20, 40):
        write(tmp_path, f"images/{i}.jpg", f"masks/{i}.png")
        after = listing(source(tmp_path))
        reassigned = set(before["val"]) ^ (set(after["val"]) - {str(i)})
        assert len(reassigned) <= 1
        before = after
    assert len(after["val"]) == 4


def test_void_index_becomes_void(tmp_path):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    expected = miniatures.mask(values=(0, 1, 2, IGNORE_LABEL))
    np.testing.assert_array_equal(only_label(source(tmp_path, void_index=11)), expected)


def test_unnamed_classes_are_counted(tmp_path):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    dataset = source(tmp_path, void_index=11)
    only_label(dataset)
    names, palette = dataset.classes()
    assert names == ("class 0", "class 1", "class 2") and palette.shape == (3, 3)


def test_gray_palette_and_rgb_masks_are_read_the_same_way(tmp_path):
    index = miniatures.mask(values=(0, 1, 2))
    colors = np.array([(0, 0, 0), (255, 0, 0), (9, 9, 200)], np.uint8)
    masks = {
        "gray": miniatures.png(index),
        "palette": miniatures.png(index, palette=True),
        "rgb": miniatures.png(colors[index]),
    }
    for kind, mask in masks.items():
        write(tmp_path / kind, "train/a.jpg", "trainannot/a.png", mask=mask)
        dataset = source(
            tmp_path / kind, class_names=("a", "b", "c"), class_colors=colors.tolist()
        )
        np.testing.assert_array_equal(only_label(dataset), index)
        np.testing.assert_array_equal(dataset.classes()[1], colors)


def test_an_unlisted_color_is_void_or_an_error(tmp_path):
    mask = miniatures.png(np.full((20, 30, 3), (7, 8, 9), np.uint8))
    write(tmp_path, "train/a.jpg", "trainannot/a.png", mask=mask)
    named = {"class_names": ("a",), "class_colors": [(0, 0, 0)]}
    assert (only_label(source(tmp_path, void_index=255, **named)) == 255).all()
    with pytest.raises(codec.BadFile, match=r"a.png: the color \[7, 8, 9\] is not in"):
        only_label(source(tmp_path, **named))
    with pytest.raises(codec.BadFile, match="RGB mask; .*class_colors=..0, 0"):
        only_label(source(tmp_path))


def first_problem(dataset):
    with pytest.raises(codec.BadFile) as caught:
        for entry in dataset.entries("train"):
            entry.load()
    return str(caught.value)


def test_an_image_without_mask_is_named(tmp_path):
    write(tmp_path, "train/a.jpg", "train/b.jpg", "trainannot/a.png")
    problem = first_problem(source(tmp_path))
    assert "trainannot/b.* does not exist, the mask of image b.jpg; a mask" in problem
    assert "has the name of its image, or that name and one of _mask, " in problem
    assert problem.endswith("ending .png, .bmp, .tif, .tiff, .webp")


def test_a_listed_file_that_does_not_exist_is_named(tmp_path):
    write(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "train.txt").write_text("a\nabsent\n")
    assert "absent.* does not exist; train.txt needs it" in first_problem(
        source(tmp_path)
    )


def test_two_images_with_the_same_stem_are_named(tmp_path):
    write(tmp_path, "train/a.jpg", "train/a.jpeg", "trainannot/a.png")
    assert "a.jpeg, a.jpg are all of 'a'; keep" in first_problem(source(tmp_path))


def test_the_mask_of_one_image_is_not_that_of_another_with_a_shorter_name(tmp_path):
    red, blue = (miniatures.png(miniatures.mask(values=(k,))) for k in (1, 2))
    write(tmp_path, "train/road.jpg", "train/road_L.jpg")
    write(tmp_path, "trainannot/road_L.png", mask=red)
    problem = first_problem(source(tmp_path))
    assert "trainannot/road.* does not exist, the mask of image road.jpg;" in problem
    write(tmp_path, "trainannot/road_mask.png", mask=blue)
    labels = {
        entry.id: codec.decode_label(entry.load()["label"], name="label")
        for entry in source(tmp_path).entries("train")
    }
    assert (labels["road"] == 2).all() and (labels["road_L"] == 1).all()


def test_the_pairing_is_part_of_the_fingerprint_where_names_allow_another(tmp_path):
    write(tmp_path, "train/road.jpg", "trainannot/road_mask.png")
    (pairs,) = folder_layouts.find(tmp_path).values()
    assert not folder_layouts.is_ambiguous(pairs)
    write(tmp_path, "train/road_L.jpg", "trainannot/road_L.png")
    assert folder_layouts.is_ambiguous(pairs)


@pytest.mark.parametrize("other", ["a_mask.png", "a.png"])
def test_two_masks_of_one_image_are_named(tmp_path, other):
    write(tmp_path, "train/a.jpg", "trainannot/a_gt.png", f"trainannot/{other}")
    problem = first_problem(source(tmp_path))
    assert "trainannot: a" in problem and "a_gt.png" in problem and other in problem
    assert "are all of 'a'; keep one of them" in problem


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (miniatures.mask(height=9), {}, "30x9 pixels, but its image has 30x20"),
        (
            miniatures.mask(values=(5,)),
            {"class_names": "abc"},
            "value 5 is not one of the 3",
        ),
        (np.zeros((20, 30, 4), np.uint8), {}, "without an alpha channel"),
        (np.zeros((20, 30), np.uint16), {}, "8-bit"),
    ],
)
def test_an_unusable_mask_is_named(tmp_path, mask, options, message):
    mask = miniatures.png(mask)
    write(tmp_path, "train/a.jpg", "trainannot/a.png", mask=mask)
    problem = first_problem(source(tmp_path, **options))
    assert "a.png" in problem and message in problem


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty (0 bytes)"),
        (b"text", "is no image in a format that is read (JPEG, PNG"),
        (miniatures.jpeg()[:-200], "truncated"),
    ],
)
def test_an_unusable_image_is_named(tmp_path, data, message):
    write(tmp_path, "trainannot/a.png")
    miniatures.write_folder(tmp_path, {"train/a.jpg": data})
    problem = first_problem(source(tmp_path))
    assert "a.jpg" in problem and message in problem


def test_without_images_the_message_says_what_to_put_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"{tmp_path} contains no images .*; put"
    ):
        source(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent does not exist; set it to"):
        source(tmp_path / "absent")
    with pytest.raises(ValueError, match="data.manual_dir is not set"):
        Folder(manual_dir=None)


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ([(0, 0)], "three whole numbers"),
        ([(0, 0, 0), (0, 0, 256)], "three whole numbers"),
        ([(0, 0, 0)], "1 colors, but .* 2 names"),
    ],
)
def test_unusable_class_colors_are_refused(tmp_path, colors, message):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    with pytest.raises(ValueError, match=f"class_colors.*{message}"):
        source(tmp_path, class_names="ab", class_colors=colors)


def test_class_colors_from_0_to_1_are_refused():
    with pytest.raises(ValueError, match="class_colors.*three whole numbers"):
        folder_masks.checked_colors([(0, 0, 0), (0.5, 0.2, 1.0)], class_names="ab")


def test_class_names_that_repeat_are_refused(tmp_path):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    with pytest.raises(ValueError, match="class_names: 'a' is the name of several"):
        source(tmp_path, class_names=["a", "b", "a"])


def test_camvid_loads_without_changes(shared_data):
    dataset = source(shared_data / "camvid", void_index=11)
    counts = {split: len(ids) for split, ids in listing(dataset).items()}
    assert counts == {"train": 367, "val": 101, "test": 233}
    label = codec.decode_label(dataset.entries("val")[0].load()["label"], name="label")
    assert label.shape == (360, 480) and set(np.unique(label)) <= {*range(11), 255}


def test_downscale_averages_images_and_takes_the_nearest_label(tmp_path):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
    label = np.arange(24, dtype=np.uint8).reshape(4, 6)
    write(tmp_path, "val/a.jpg", "valannot/a.png")
    for name, array in (("train/a.png", image), ("trainannot/a.png", label)):
        miniatures.write_folder(tmp_path, {name: miniatures.png(array)})
    dataset = source(tmp_path, downscale=2)
    record = dataset.entries("train")[0].load()
    small = codec.decode_image(record["image"], name="image")
    means = image.astype(float).reshape(2, 2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=0.5)
    expected = label.reshape(2, 2, 3, 2)  # each of the four pixels is as near
    actual = codec.decode_label(record["label"], name="label")
    assert actual.shape == (2, 3)
    assert (expected == actual[:, None, :, None]).any(axis=(1, 3)).all()


def test_downscale_is_part_of_the_fingerprint_only_if_it_changes_the_images(tmp_path):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    whole = source(tmp_path).fingerprint()
    assert source(tmp_path, downscale=1).fingerprint() == whole
    assert source(tmp_path, downscale=2).fingerprint() != whole


@pytest.mark.parametrize("value", [0, -2, True])
def test_downscale_must_be_a_positive_integer(tmp_path, value):
    write(tmp_path, "train/a.jpg", "trainannot/a.png")
    with pytest.raises(ValueError, match=r"data.options.downscale=.* positive integer"):
        source(tmp_path, downscale=value)
