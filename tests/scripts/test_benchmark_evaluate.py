import argparse
import importlib
import json

import jax
import pytest

from tempseg_jax.inference import sliding_window, tta
from tempseg_jax.inference.settings import InferenceSettings
from tests.support import ROOT


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as Python does for a script
    photos = importlib.import_module("benchmark_parts.photos")
    monkeypatch.setattr(photos, "HEIGHT", 64)
    monkeypatch.setattr(photos, "WIDTH", 160)
    return importlib.import_module("benchmark_parts.evaluate")


def arguments(script, *options):
    parser = argparse.ArgumentParser()
    script.add_arguments(parser)
    small = ("--model=fcn8s", "--width=0.02", "--num_workers=0")
    return parser.parse_args([*small, "--rounds=1", "--images=1", *options])


def test_both_modes_their_ratio_and_the_memory_are_printed(script, capsys):
    options = ("--window=64", "--memory_images=20")
    assert script.run(arguments(script, *options)) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    network, evaluation, ratio, memory = lines
    names = [line["mode"] for line in lines]
    assert names == ["network", "evaluation", "ratio", "memory"]
    assert all(line["window"] == 64 and not line["flip"] for line in lines)
    expected = evaluation["s_per_image"][0] / network["s_per_image"][0]
    assert ratio["evaluation_to_network"][0] == pytest.approx(expected, rel=0.1)
    assert len(memory["rss_mib_after_each_tenth"]) == 10
    assert min(memory["rss_mib_after_each_tenth"]) > 0
    for i, resident in enumerate(memory["rss_mib_after_each_tenth"]):
        assert f"{10 * (i + 1)} % of 20 images: {resident} MiB\n" in printed.err


def test_the_network_alone_runs_on_the_windows_of_the_evaluation(
    script, monkeypatch, tmp_path
):
    shapes, log_probabilities = [], tta.log_probabilities

    def record(variables, image, **network):
        shapes.append(image.shape)
        return log_probabilities(variables, image, **network)

    monkeypatch.setattr(tta, "log_probabilities", record)
    args = arguments(script, "--window=64", "--stride=32")
    settings = InferenceSettings(64, 32, (1.0,), flip=False)
    split = script.made_split(args, tmp_path)
    evaluation = script.Evaluation(args, settings, split)
    assert evaluation.seconds() > 0
    # Left edges 0, 32, ..., 192 of the canvas, which is 256 pixels wide.
    assert evaluation.inputs() == (shapes, 1) == ([(7, 64, 64, 3)], 1)


def test_nothing_is_queued_when_the_time_of_the_network_starts(
    script, monkeypatch, tmp_path
):
    queued, bands, crops = [], sliding_window.bands, sliding_window._crops

    def watched_crops(*arguments, **options):
        queued.append(crops(*arguments, **options))
        return queued[-1]

    def watched_bands(*arguments, **options):
        for band in bands(*arguments, **options):
            queued.append(band.logits)
            yield band

    waited, wait = [], jax.block_until_ready
    monkeypatch.setattr(sliding_window, "_crops", watched_crops)
    monkeypatch.setattr(sliding_window, "bands", watched_bands)
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(x) or wait(x))
    args = arguments(script, "--window=64", "--stride=32")
    settings = InferenceSettings(64, 32, (1.0,), flip=False)
    split = script.made_split(args, tmp_path)
    script.Evaluation(args, settings, split).inputs()
    assert len(queued) == 2  # windows and sums of one band
    assert all(any(x is y for y in waited) for x in queued)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--rounds=0", "--rounds=0: give 1 or more"),
        ("--memory_images=9", "--memory_images=9: give 10 or more"),
        ("--scales=x", "scales: 'x' is not a list of numbers"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(script, option, message):
    with pytest.raises(SystemExit, match=message) as caught:
        script.run(arguments(script, option))
    assert "\n" not in str(caught.value)
