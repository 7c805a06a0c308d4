"""The end of a run: what is left open when it fails."""

import pytest

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
            demo_config, tmp_path, finish.Splits(), examples=tmp_path / "examples.npz"
        )
    assert closed == [tmp_path / "checkpoints"]
