"""A resume warns if metrics.jsonl is not the log that training wrote."""

import pytest

from tempseg_jax.workdir.log_digest import NAME
from tempseg_jax.workdir.metrics_writer import Writer, read_metrics


@pytest.fixture
def log(tmp_path):
    """A log of two steps that are synced and one that is not."""
    with Writer(tmp_path, start_step=0, last_step=9) as writer:
        writer.write(1, {"train/loss": 1.5})
        writer.write(2, {"train/loss": 2.5})
        writer.sync()
        writer.write(3, {"train/loss": 3.5})
    return tmp_path / "metrics.jsonl"


def warning_of_a_resume(log, caplog, *, start_step=3):
    caplog.clear()
    with Writer(log.parent, start_step=start_step, last_step=9):
        pass
    return "has changed since training wrote it" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda log: log.write_text(log.read_text().replace("2.5", "2.4")),
        lambda log: log.write_text("".join(log.open().readlines()[1:])),
        lambda log: log.unlink(),
        lambda log: log.with_name(NAME).write_text("{}"),
        lambda log: log.with_name(NAME).write_bytes(b"\xff"),
    ],
    ids=["digit", "line", "deleted", "no digest in it", "no text"],
)
def test_a_change_of_a_synced_line_is_said(log, caplog, change):
    change(log)
    assert warning_of_a_resume(log, caplog)
    assert not warning_of_a_resume(log, caplog)  # once


@pytest.mark.parametrize(
    "change",
    [
        lambda log: None,
        lambda log: log.write_text(log.read_text()[:-9]),  # a killed process
        lambda log: log.with_name(NAME).unlink(),  # as a run of an older version
    ],
    ids=["nothing", "torn last line", "no file"],
)
def test_otherwise_nothing_is_said(log, caplog, change):
    change(log)
    assert not warning_of_a_resume(log, caplog)


def test_lines_that_a_resume_drops_are_not_missed_by_the_next(log, caplog):
    assert not warning_of_a_resume(log, caplog, start_step=1)
    assert [line["step"] for line in read_metrics(log.parent)] == [1]
    assert not warning_of_a_resume(log, caplog, start_step=1)
