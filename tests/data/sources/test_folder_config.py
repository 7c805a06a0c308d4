"""A config that is written for a folder trains as it is."""

from pathlib import Path

import numpy as np
import pytest

from tempseg_jax import builders
from tempseg_jax.builders.config_fields import check_fields
from tempseg_jax.data import codec
from tempseg_jax.data.problem_files import ProblemFiles
from tempseg_jax.data.sources import folder_config, folder_survey
from tests import miniatures

RGB = np.array([(0, 0, 0), (255, 0, 0), (9, 9, 200)], np.uint8)


def write(root, mask, *, splits=("train", "val")):
    for split in splits:
        for i in range(3):
            files = {f"{split}/images/{i}.jpg": miniatures.jpeg(i)}
            files[f"{split}/masks/{i}.png"] = mask
            miniatures.write_folder(root, files)


def written_config(root, tmp_path, *, base="demo"):
    """Return the config that the written source gives."""
    found = folder_survey.survey(root)
    path = tmp_path / "mine.py"
    path.write_text(folder_config.config_source(found, base=base, path=path))
    namespace = {}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    config = namespace["get_config"]()
    config.data.data_dir = str(tmp_path / "prepared")
    check_fields(config)
    return config


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0, 255), (0, 1)),  # 255 is a class, because there is no other
        ((0, 1, 2, 255), (0, 1, 2, 255)),  # 255 is void
        ((0, 127, 255), (0, 1, 2)),  # gray levels
        ((1, 2, 5), (0, 1, 2)),
        ((1, 2, 255), (0, 1, 255)),
        ((0, 100, 200), (0, 1, 2)),
    ],
)
def test_gray_masks(values, labels, tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask(values=values)))
    config = written_config(tmp_path / "own", tmp_path)
    split = builders.load_split(config, "train")
    found = {int(v) for x in split.examples for v in np.unique(label_of(x))}
    assert found == set(labels)
    assert len(split.class_names) == len(found - {255})


def label_of(record):
    return codec.decode_label(record["label"], name="x")


def test_rgb_masks(tmp_path):
    index = miniatures.mask(values=(0, 1, 2))
    write(tmp_path / "own", miniatures.png(RGB[index]))
    config = written_config(tmp_path / "own", tmp_path, base="fcn_camvid")
    split = builders.load_split(config, "train")
    order = sorted(map(tuple, RGB.tolist()))
    np.testing.assert_array_equal(split.palette, order)
    painted = split.palette[label_of(split.examples[0])]
    np.testing.assert_array_equal(painted, RGB[index])


def test_the_lines_of_the_classes_may_be_reordered(tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask(values=(0, 1, 2, 255))))
    found = folder_survey.survey(tmp_path / "own")
    source = folder_config.config_source(found, base="demo", path=Path("mine.py"))
    lines = [f'    "class {k}": {k},\n' for k in range(3)]
    assert "".join(lines) in source
    namespace = {}
    exec(source.replace("".join(lines), "".join(lines[::-1])), namespace)
    config = namespace["get_config"]()
    config.data.data_dir = str(tmp_path / "prepared")
    split = builders.load_split(config, "train")
    assert split.class_names == ("class 2", "class 1", "class 0")
    label = label_of(split.examples[0]).astype(int)
    in_the_mask = miniatures.mask(values=(0, 1, 2, 255))
    np.testing.assert_array_equal(np.where(label < 255, 2 - label, 255), in_the_mask)


def test_an_rgb_mask_that_is_all_black_is_a_mask_of_colors(tmp_path):
    write(tmp_path / "own", miniatures.png(RGB[miniatures.mask(values=(0, 1, 2))]))
    black = miniatures.png(np.zeros((20, 30, 3), np.uint8))
    miniatures.write_folder(tmp_path / "own", {"train/masks/1.png": black})
    config = written_config(tmp_path / "own", tmp_path)
    split = builders.load_split(config, "train")
    assert sorted(map(tuple, RGB.tolist())) == sorted(
        map(tuple, split.palette.tolist())
    )
    gray = miniatures.png(np.zeros((20, 30), np.uint8))
    miniatures.write_folder(tmp_path / "own", {"train/masks/1.png": gray})
    with pytest.raises(ValueError, match=r"gray \(.*1.png\) and others RGB \(.*png\)"):
        folder_survey.survey(tmp_path / "own")


def test_masks_that_are_jpegs_are_refused(tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask(values=(0, 1, 2))))
    root = tmp_path / "own" / "train" / "masks"
    first = min(root.iterdir())
    first.unlink()
    first.with_suffix(".jpg").write_bytes(miniatures.jpeg())
    with pytest.raises(ProblemFiles, match="the mask is a JPEG, which does not keep"):
        folder_survey.survey(tmp_path / "own")


@pytest.mark.parametrize("rgb", [False, True])
def test_a_class_of_val_only_is_named_and_allowed(rgb, tmp_path):
    root = tmp_path / "own"
    masks = {
        split: miniatures.mask(values=values)
        for split, values in (("train", (0, 1)), ("val", (0, 1, 2)))
    }
    for split, mask in masks.items():
        write(root, miniatures.png(RGB[mask] if rgb else mask), splits=(split,))
    value = (9, 9, 200) if rgb else 2
    assert folder_survey.survey(root).absent == [value]
    config = written_config(root, tmp_path)
    assert f"are not learned: {value}" in (tmp_path / "mine.py").read_text()
    assert len(builders.load_split(config, "train").class_names) == 3


def test_missing_and_broken_masks_are_named_together_or_skipped(tmp_path):
    root = tmp_path / "own"
    write(root, miniatures.png(miniatures.mask(values=(0, 1))))
    (root / "train/masks/1.png").unlink()
    (root / "val/masks/2.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="own: 2 problem files: .*1[.].*; .*2.png"):
        folder_survey.survey(root)
    for i in range(3):
        (root / f"val/masks/{i}.png").rename(root / f"val/masks/{i}.bak")
    broken = root / "train/masks"
    broken.rename(root / "train/kept")
    broken.mkdir()
    with pytest.raises(ValueError, match="own: no mask of train can be read"):
        folder_survey.survey(root, on_error="skip")
    broken.rmdir()
    (root / "train/kept").rename(broken)
    for i in range(3):
        (root / f"val/masks/{i}.bak").rename(root / f"val/masks/{i}.png")
    found = folder_survey.survey(root, on_error="skip")
    assert found.images == {"train": 2, "val": 2} and found.classes == [0, 1]


def test_a_smoothed_mask_is_skipped_like_one_that_is_broken(tmp_path):
    root = tmp_path / "own"
    write(root, miniatures.png(miniatures.mask(values=(0, 1))))
    gray = np.arange(600).reshape(20, 30).astype(np.uint8)
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for i, mask in enumerate((gray, rgb)):
        files = {f"train/masks/{i}.png": miniatures.png(mask)}
        miniatures.write_folder(root, files)
    message = "2 problem files: .*0.png: the masks hold 256 different.*1.png: "
    with pytest.raises(ProblemFiles, match=message):
        folder_survey.survey(root)
    found = folder_survey.survey(root, on_error="skip")
    assert found.images == {"train": 1, "val": 3} and found.classes == [0, 1]


@pytest.mark.parametrize(
    ("splits", "chosen", "reason"),
    [
        (("train", "test"), "test", "the best checkpoint is then chosen on the test"),
        (("train",), "train", "its scores are not those of unseen images"),
    ],
)
def test_it_is_said_if_validation_uses_another_split(splits, chosen, reason, tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask()), splits=splits)
    lines = " ".join(folder_survey.survey(tmp_path / "own").lines())
    assert f"no split 'val', so validation uses {chosen!r}: {reason}" in lines
    assert written_config(tmp_path / "own", tmp_path).data.val_split == chosen


def test_a_folder_without_a_train_split_is_refused(tmp_path):
    write(tmp_path, miniatures.png(miniatures.mask()), splits=("val",))
    with pytest.raises(ValueError, match="no split 'train', only val; the folder"):
        folder_survey.survey(tmp_path)


@pytest.mark.parametrize(
    ("base", "steps"),
    [("demo", 400), ("fcn_camvid", 1000), ("resnet50_c4_camvid", 600)],
)
def test_lengths_fit_the_number_and_the_size_of_the_images(base, steps, tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask()), splits=("train",))
    config = written_config(tmp_path / "own", tmp_path, base=base)
    assert config.data.batch_size == 3 and config.epochs == steps  # of one step
    assert config.steps is None  # or it would replace the epochs
    assert config.data.crop_size == 32 and config.data.val_split == "train"
    assert config.optimizer.warmup_epochs == steps / 10


def test_only_a_base_with_weights_says_how_to_go_without_them(tmp_path):
    write(tmp_path, miniatures.png(miniatures.mask()))
    for base, count in (("demo", 0), ("resnet50_camvid", 1)):
        source = folder_config.config_source(
            folder_survey.survey(tmp_path), base=base, path=Path("mine.py")
        )
        assert source.count("pretrained") == count


def test_what_was_found_is_said_in_words(tmp_path):
    write(tmp_path / "own", miniatures.png(miniatures.mask(values=(0, 255))))
    (tmp_path / "own/train/images/x.heic").touch()
    text = "\n".join(folder_survey.survey(tmp_path / "own").lines())
    for words in (
        "images: train 3, val 3",
        "sizes: 30x20 (6)",
        "2 classes; the values are not the class indices",
        "void: none found",
        "1 files are left out, which are no images in a format that is read: .heic",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((20, 30), np.uint8), "all masks hold the value 0 only"),
        (np.arange(600).reshape(20, 30).astype(np.uint8), "256 different values"),
        (
            np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8),
            "different values or colors, as JPEGs",
        ),
    ],
)
def test_masks_that_need_a_decision_are_refused(mask, message, tmp_path):
    write(tmp_path, miniatures.png(mask))
    with pytest.raises(ValueError, match=message):
        folder_survey.survey(Path(tmp_path))
