"""The end of a run: what is left open when it fails."""

import pytest

from tempseg_jax.data.codec import BadFile
from tempseg_jax.sweep import finish
from tempseg_jax.workdir.checkpoint import Checkpoints


def test_the_checkpoints_are_closed_when_there_is_none(
    demo_config, tmp_path, monkeypatch
):
    closed, close = [], Checkpoints.close

    def record(checkpoints):
        closed.append(checkpoints.folder)
        close(checkpoints)

    monkeypatch.setattr(Checkpoints, "close", record)
    with pytest.raises(FileNotFoundError, match="no checkpoint 'latest'"):
        finish.finish(
            demo_config,
            tmp_path,
            finish.Splits({}, 0),
            examples=tmp_path / "examples.npz",
        )
    assert closed == [tmp_path / "checkpoints"]


def test_training_images_that_training_skips_are_not_measured(demo_config, monkeypatch):
    def decode(record, *, split):
        if record["id"] == bad:
            raise BadFile(f"{bad}: cannot be decoded")

    monkeypatch.setattr(finish, "decode", decode)

    def measured(on_error):
        demo_config.data.on_error = on_error
        splits = finish.Splits.load(demo_config, test_split="", train_images=5)
        return [example["id"] for example in splits.by_name["train"].examples]

    bad = ""
    whole = measured("skip")
    bad = whole[2]
    assert measured("skip") == [id_ for id_ in whole if id_ != bad]
    assert measured("raise") == whole  # so that the evaluation names the file
