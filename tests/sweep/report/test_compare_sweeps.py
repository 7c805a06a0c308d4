"""Tests of the figure of several sweeps."""

import runpy
import sys

import pytest

from tempseg_jax.sweep.report import drawing
from tempseg_jax.sweep.report.tables import paired_difference
from tests.support import ROOT
from tests.sweep.report.fake_sweep import write_sweep

SCRIPT = ROOT / "scripts" / "compare_sweeps.py"


@pytest.fixture
def main(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_each_sweep_has_its_own_markers_and_what_it_lacks_is_left_out(
    main, full, tmp_path, monkeypatch
):
    part = write_sweep(tmp_path / "part", tables=("3",))
    drawn, new_axes = [], drawing.new_axes

    def new_axes_recorded(*, height):
        drawn.append(new_axes(height=height))
        return drawn[-1]

    monkeypatch.setattr(drawing, "new_axes", new_axes_recorded)
    out = tmp_path / "new" / "figure.svg"
    main(f"all of it={full.folder}", f"a part={part.folder}", f"--out={out}")
    (axes,) = drawn
    assert len(axes.get_yticklabels()) == 5
    for sweep, marker, pairs in (
        (full, "o", 5),
        (part, "s", 2),  # without the controls, seg_only is not trained
    ):
        shown = [x.get_xdata()[0] for x in axes.lines if x.get_marker() == marker]
        assert len(shown) == pairs
        assert (
            shown[0]
            == paired_difference(sweep, "tg0.5", "baseline", "val", "miou").difference
        )
    (legend,) = axes.figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["all of it", "a part"]
    assert b"</svg>" in out.read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{0}"], "'{0}': give NAME=FOLDER"),
        (["a={0}", "a={0}"], "the name 'a' is given twice"),
        (["a={0}/missing"], "not the folder of a sweep"),
        (["a={1}", "--split=test"], "--split=test: no sweep has two settings"),
    ],
)
def test_a_mistake_is_one_line(main, full, tmp_path, arguments, message):
    out, empty = tmp_path / "figure.svg", tmp_path / "empty"
    write_sweep(empty, runs=[])
    with pytest.raises(SystemExit) as exit_:
        main(*(x.format(full.folder, empty) for x in arguments), f"--out={out}")
    (line,) = exit_.value.code.splitlines()  # printed, with exit status 1
    assert message.format(full.folder) in line
    assert not out.exists()
