import errno
import gzip
import io
import json

import pytest
from tensorboardX.event_file_writer import EventsWriter

from tempseg_jax.workdir.metrics_writer import Writer, read_metrics
from tests.events import read_events


def write(workdir, *, start_step=0, lines):
    with Writer(workdir, start_step=start_step, last_step=100) as writer:
        for step, metrics in lines:
            writer.write(step, metrics)


def events(workdir):
    """Return the points that TensorBoard shows: {name: {step: value}}."""
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in read_events(path):
            if event.session_log.status == event.session_log.START:
                for points in shown.values():
                    for step in [step for step in points if step >= event.step]:
                        del points[step]
            for value in event.summary.value:
                shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown


def test_a_line_is_an_object_with_the_step_and_the_names(tmp_path):
    write(tmp_path, lines=[(10, {"train/loss": 1.5}), (20, {"val/miou": 0.25})])
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 10, "train/loss": 1.5},
        {"step": 20, "val/miou": 0.25},
    ]
    assert read_metrics(tmp_path) == [json.loads(line) for line in text.splitlines()]


def test_tensorboard_has_the_same_names(tmp_path):
    write(tmp_path, lines=[(10, {"train/loss": 1.5}), (20, {"val/miou": 0.25})])
    assert events(tmp_path) == {"train/loss": {10: 1.5}, "val/miou": {20: 0.25}}


def test_a_resume_drops_the_lines_that_it_will_write_again(tmp_path):
    write(tmp_path, lines=[(step, {"train/loss": 1.0}) for step in (5, 10, 15, 20)])
    # Files are sorted by the second of their start, which both starts may share.
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.rename(first.with_name("events.out.tfevents.0"))
    rewritten = [(step, {"train/loss": 2.0}) for step in (15, 20, 25)]
    write(tmp_path, start_step=10, lines=rewritten)
    expected = {5: 1.0, 10: 1.0, 15: 2.0, 20: 2.0, 25: 2.0}
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == list(expected)
    assert {line["step"]: line["train/loss"] for line in lines} == expected
    assert events(tmp_path)["train/loss"] == expected


def test_an_incomplete_last_line_is_dropped(tmp_path):
    write(tmp_path, lines=[(5, {"train/loss": 1.0})])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train/lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [5]
    write(tmp_path, start_step=5, lines=[(6, {"train/loss": 2.0})])
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 6]


def test_nan_and_infinity_are_null_in_strict_json(tmp_path):
    write(tmp_path, lines=[(5, {"val/miou": float("nan"), "x": float("inf")})])
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    parsed = json.loads(line, parse_constant=refuse)
    assert parsed == {"step": 5, "val/miou": None, "x": None}


def test_a_folder_without_metrics_has_no_lines(tmp_path):
    assert read_metrics(tmp_path) == []


def test_a_compressed_log_is_read_unless_training_has_written_one(tmp_path):
    compressed = tmp_path / "metrics.jsonl.gz"
    compressed.write_bytes(gzip.compress(b'{"step": 5}\n{"step": 6}\n'))
    assert read_metrics(tmp_path) == [{"step": 5}, {"step": 6}]
    (tmp_path / "metrics.jsonl").write_text('{"step": 7}\n')
    assert read_metrics(tmp_path) == [{"step": 7}]


def test_a_damaged_line_of_a_compressed_log_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl.gz").write_bytes(gzip.compress(b'{"step": 5,\n'))
    with pytest.raises(ValueError, match="metrics.jsonl.gz: line 1 is not JSON"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "header", "content"])
def test_a_damaged_compressed_log_is_refused(tmp_path, damage):
    data = gzip.compress(b'{"step": 5}\n' * 100)
    damaged = {
        "cut": data[:-5],
        "header": b"xx" + data[2:],
        "content": data[:12] + bytes([data[12] ^ 255]) + data[13:],
    }
    (tmp_path / "metrics.jsonl.gz").write_bytes(damaged[damage])
    with pytest.raises(ValueError, match="metrics.jsonl.gz: it is damaged .*restore"):
        read_metrics(tmp_path)


def test_a_damaged_line_is_refused_with_its_number(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 5}\n{"step": 6,\n{"step": 7}\n')
    message = "metrics.jsonl: line 2 is not JSON .*; delete that line"
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)


def test_progress_is_plain_lines_without_a_terminal(tmp_path, capsys):
    with Writer(tmp_path, start_step=0, last_step=100) as writer:
        writer.progress(
            40,
            {"train/loss": 0.5, "train/images_per_s": 8.0, "train/steps_per_s": 0.5},
            left="2:00",
        )
        writer.message("hello")
    assert capsys.readouterr().out == (
        "step 40/100  loss 0.5000  8.0 images/s  2:00 left\nhello\n"
    )


def test_a_failure_of_events_is_one_warning_and_never_blocks(
    tmp_path, monkeypatch, caplog
):
    # tensorboardX's own writer blocks at the 11th value after such a failure.
    def fail(*_):
        raise OSError(28, "No space left on device")

    with Writer(tmp_path, start_step=0, last_step=100) as writer:
        monkeypatch.setattr(EventsWriter, "write_event", fail)
        monkeypatch.setattr(EventsWriter, "close", fail)
        for step in range(1, 101):
            writer.write(step, {"train/loss": 1.0})
    assert len(read_metrics(tmp_path)) == 100
    (warning,) = caplog.messages
    assert "tensorboard: TensorBoard events are no longer written" in warning


def test_events_that_cannot_be_created_do_not_stop_a_run(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where the folder shall be")
    write(tmp_path, lines=[(5, {"train/loss": 1.0})])
    assert len(read_metrics(tmp_path)) == len(caplog.messages) == 1


class FullDisk(io.StringIO):
    """A file whose writes fail when they are flushed."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_of_metrics_names_the_file_and_the_remedy(tmp_path):
    message = "No space left on device; free some space.*start the same.*metrics.jsonl"
    with (
        pytest.raises(OSError, match=message),
        Writer(tmp_path, start_step=0, last_step=100) as writer,
    ):
        writer._lines.close()
        writer._lines = FullDisk()
        writer.write(5, {"train/loss": 1.0})


@pytest.mark.parametrize("line", [b"[1]", b'{"a": 1}', b'{"step": "x"}', b"\xff\xfe"])
def test_a_line_that_is_no_object_with_a_step_is_refused(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 5}\n' + line + b"\n")
    with pytest.raises(ValueError, match="metrics.jsonl: line 2 is not JSON"):
        read_metrics(tmp_path)
