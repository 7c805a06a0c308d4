"""What mask values mean, and what is refused instead of being dropped in silence."""

import logging

import numpy as np
import pytest

from tempseg_jax.data import catalog, codec
from tempseg_jax.data.sources.folder import Folder
from tempseg_jax.data.sources.folder_content import Content
from tempseg_jax.data.sources.folder_masks import MaskRules
from tests import miniatures

BINARY = miniatures.mask(values=(0, 255))
NAMES = ("ground", "road")


def write(root, mask, *, ending=".png", images=3):
    for split in ("train", "val"):
        for i in range(images):
            files = {f"{split}/{i}.jpg": miniatures.jpeg(i)}
            files[f"{split}annot/{i}{ending}"] = mask
            miniatures.write_folder(root, files)


def labels(root, **options):
    """Return all values of the prepared labels of train."""
    split = catalog.load_split(
        "folder",
        split="train",
        manual_dir=str(root / "own"),
        data_dir=str(root / "prepared"),
        **options,
    )
    decoded = [codec.decode_label(x["label"], name="x") for x in split.examples]
    return split, np.unique(decoded)


@pytest.mark.parametrize("names", [NAMES, None])
def test_masks_of_0_and_255_are_refused_with_the_remedy(tmp_path, names):
    write(tmp_path / "own", miniatures.png(BINARY))
    options = {"class_names": names} if names else {}
    with pytest.raises(ValueError) as caught:
        labels(tmp_path, **options)
    message = str(caught.value)
    assert "'road' occurs in no mask" in message if names else "only class" in message
    assert "the values 0, 255; 255 is void" in message
    assert 'data.options.mask_values={"0": 0, "255": 1}' in message
    assert "data.options.allow_absent_classes=true" in message
    split, values = labels(tmp_path, allow_absent_classes=True, **options)
    assert values.tolist() == [0, 255]


@pytest.mark.parametrize(
    "remedy",
    [
        {"mask_values": {0: 0, 255: 1}},
        {"mask_values": {"0": 0, "255": 1}},
        {"class_colors": [(0, 0, 0), (255, 255, 255)], "class_names": NAMES},
    ],
)
def test_the_remedies_train_on_both_values(tmp_path, remedy):
    write(tmp_path / "own", miniatures.png(BINARY))
    split, values = labels(tmp_path, **remedy)
    assert values.tolist() == [0, 1] and len(split.class_names) == 2
    label = codec.decode_label(split.examples[0]["label"], name="x")
    np.testing.assert_array_equal(label, BINARY == 255)


def test_gray_masks_that_were_saved_as_rgb_or_rgba_are_gray_masks(tmp_path):
    for name, shape in (("rgb", (1, 1, 3)), ("rgba", (1, 1, 4))):
        mask = np.tile(BINARY[..., None], shape)
        mask[..., 3:] = 255
        write(tmp_path / name / "own", miniatures.png(mask))
        _, values = labels(tmp_path / name, mask_values={0: 0, 255: 1})
        assert values.tolist() == [0, 1]


def test_mask_values_may_name_void_and_an_unlisted_value_is_named(tmp_path):
    mask = miniatures.png(miniatures.mask(values=(10, 20, 30, 40)))
    write(tmp_path / "own", mask)
    _, values = labels(tmp_path, mask_values={10: 0, 20: 1, 30: 255}, void_index=40)
    assert values.tolist() == [0, 1, 255]
    with pytest.raises(
        ValueError,
        match=r"value 40 is not in .*mask_values \(10, 20, 30\); .*void_index",
    ):
        labels(tmp_path, mask_values={10: 0, 20: 1, 30: 255})


def test_a_mask_like_a_jpeg_is_named_as_such(tmp_path):
    mask = np.arange(600).reshape(20, 30) % 236
    write(tmp_path / "own", miniatures.png(mask.astype(np.uint8)))
    for names in (None, NAMES):
        with pytest.raises(
            ValueError, match="236 different values and looks like a JPE"
        ):
            labels(tmp_path, class_names=names)


def test_rgb_masks_that_are_all_void_are_refused_with_the_remedy(tmp_path):
    mask = np.zeros((20, 30, 3), np.uint8)
    mask[..., 2] = 7
    write(tmp_path / "own", miniatures.png(mask))
    colors = [(7, 0, 0), (0, 7, 0)]
    with pytest.raises(ValueError, match="is void; .*correct data.options.class_colo"):
        labels(
            tmp_path,
            class_names=NAMES[:2],
            class_colors=colors,
            void_index=255,
            allow_absent_classes=True,
        )


def test_a_class_that_255_is_mapped_to_is_not_called_void(tmp_path):
    write(tmp_path / "own", miniatures.png(BINARY))
    names = [*NAMES, "rail"]
    with pytest.raises(ValueError, match="'rail' occurs in no mask") as caught:
        labels(tmp_path, class_names=names, mask_values={0: 0, 255: 1})
    assert "the values 0, 255; " in str(caught.value)
    assert "is void" not in str(caught.value)


def test_void_everywhere_is_refused(tmp_path):
    write(tmp_path / "own", miniatures.png(np.full((20, 30), 255, np.uint8)))
    with pytest.raises(ValueError, match="train: every pixel of every mask is void"):
        labels(tmp_path, class_names=NAMES, allow_absent_classes=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"class_names": ["x"] * 257},
            "class_names: 257 classes are more than the 255",
        ),
        ({"void_index": 256}, "void_index: 256 is no value"),
        ({"mask_values": {0: 0, 300: 1}}, "mask_values=.*each mask value, 0 to 255"),
        (
            {"mask_values": {0: 2}, "class_names": NAMES},
            r"a class from 0 to 1 \(data.options.class_names has 2\), or 255",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused_before_files_are_read(
    options, message
):
    with pytest.raises(ValueError, match=message):
        Folder(manual_dir="/absent", **options)


PAIRS = (
    "train/images/a.jpg train/labels/a.png valid/images/b.jpg valid/labels/b.png",
    "images/training/a.jpg annotations/training/a.png images/validation/b.jpg"
    " annotations/validation/b.png",
    "img_dir/train/a.tif ann_dir/train/a.png img_dir/val/b.tif ann_dir/val/b.png",
    "train/a.jpg train_labels/a_L.png val/b.jpg val_labels/b_L.png",
    "images/train/city/a.jpg masks/train/city/a_mask.png images/val/city/b.jpg"
    " masks/val/city/b_mask.png",
)


@pytest.mark.parametrize("names", PAIRS)
def test_common_layouts(tmp_path, names):
    for name in names.split():
        is_mask = any(x in name for x in ("label", "annot", "ann_dir", "mask"))
        data = miniatures.png(BINARY) if is_mask else tiff_or_jpeg(name)
        miniatures.write_folder(tmp_path, {name: data})
        hidden = name.replace("a.", "._a.")
        miniatures.write_folder(tmp_path, {hidden: b"macOS"} if hidden != name else {})
    dataset = Folder(manual_dir=str(tmp_path), mask_values={0: 0, 255: 1})
    ids = {split: [x.id for x in dataset.entries(split)] for split in dataset.splits}
    nested = "city/" if "city" in names else ""
    assert ids == {"train": [f"{nested}a"], "val": [f"{nested}b"]}
    for split in ids:
        (entry,) = dataset.entries(split)
        assert codec.decode_image(entry.load()["image"], name="x").shape == (20, 30, 3)
    assert dataset.notes() == ()


def tiff_or_jpeg(name):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    return (
        miniatures.encoded(image, "tiff") if name.endswith("tif") else miniatures.jpeg()
    )


def test_a_list_with_a_byte_order_mark_and_paths(tmp_path):
    for name in ("x/a", "y/a", "c"):
        miniatures.write_folder(
            tmp_path,
            {
                f"images/{name}.jpg": miniatures.jpeg(),
                f"masks/{name}.png": miniatures.png(BINARY),
            },
        )
    (tmp_path / "train.txt").write_text("images/y/a.jpg\nc\n", encoding="utf-8-sig")
    (tmp_path / "val.txt").write_text("x/a\n")
    dataset = Folder(manual_dir=str(tmp_path))
    assert [x.id for x in dataset.entries("train")] == ["y/a", "c"]
    assert [x.id for x in dataset.entries("val")] == ["x/a"]
    (tmp_path / "train.txt").write_text("a\n", encoding="utf-16")
    with pytest.raises(
        ValueError, match="train.txt: line 1 is not UTF-8; save the file as UTF-8"
    ):
        Folder(manual_dir=str(tmp_path))


def test_files_that_no_split_uses_are_counted_and_named(tmp_path, caplog):
    own = tmp_path / "own"
    write(own, miniatures.png(miniatures.mask(values=(0, 1))))
    extra = {"train/x.heic": b"x", "train/notes.txt": b"x"}
    miniatures.write_folder(own, extra | {"trainannot/lonely.png": b"x"})
    (own / "train" / "link.png").symlink_to(own / "lost.png")
    with caplog.at_level(logging.WARNING, logger="absl"):
        split, _ = labels(tmp_path)
    others, lonely = split.notes
    assert "3 files are left out" in others and ".heic (1)" in others
    assert ".txt (1)" in others and "no regular file (1)" in others
    assert "1 masks are left out, which have no image, such as lonely.png" in lonely
    assert others in caplog.text and lonely in caplog.text


def test_images_that_are_in_no_list_are_counted(tmp_path):
    for i in range(4):
        files = {f"images/{i}.jpg": miniatures.jpeg()}
        files[f"masks/{i}.png"] = miniatures.png(BINARY)
        miniatures.write_folder(tmp_path, files)
    (tmp_path / "train.txt").write_text("0\n1\n")
    (tmp_path / "val.txt").write_text("2\n")
    (note,) = Folder(manual_dir=str(tmp_path)).notes()
    assert "1 images are left out, which are in no list, such as 3" in note


def test_an_unknown_layout_is_refused_with_what_is_there(tmp_path):
    miniatures.write_folder(tmp_path, {"pictures/a.jpg": miniatures.jpeg()})
    with pytest.raises(FileNotFoundError, match="there is: pictures/$"):
        Folder(manual_dir=str(tmp_path))


def test_the_colors_of_rgb_masks_are_counted():
    content = Content()
    colors = np.array([(0, 0, 0), (255, 0, 1), (9, 200, 255)], np.uint8)
    label = miniatures.mask(values=(0, 1, 2))
    content.add(colors[label], label)
    with pytest.raises(ValueError, match="'d' occurs in no mask; .* colors") as error:
        rules = MaskRules(
            void_index=None, class_names="abcd", class_colors=None, mask_values=None
        )
        content.check_present("abcd", where="here", rules=rules)
    assert "(0, 0, 0), (255, 0, 1), (9, 200, 255)" in str(error.value)
