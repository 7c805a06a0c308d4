import json

import pytest

from tempseg_jax.workdir import saved_config
from tests.support import load_config


@pytest.mark.parametrize("name", ["demo", "resnet50_camvid"])
def test_a_workdir_gives_back_the_config_it_was_claimed_with(tmp_path, name):
    config = load_config(name)
    saved_config.claim(tmp_path / "run", config, allow_change=False)
    assert saved_config.read_config(tmp_path / "run").to_dict() == config.to_dict()
    saved_config.claim(tmp_path / "run", config, allow_change=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_another_config_is_refused_by_the_fields_that_differ(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    before = (tmp_path / "config.json").read_text()
    config.objective.temperature_g = 2.0
    config.steps = 7
    message = (
        "config.json: the workdir belongs to another config .objective.temperature_g: "
        "0.5 there, 2.0 now; steps: None there, 7 now.; choose another --workdir; .*"
        "pass --allow_config_change"
    )
    for refuse in (
        lambda: saved_config.check(tmp_path, config),
        lambda: saved_config.claim(tmp_path, config, allow_change=False),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()
    assert (tmp_path / "config.json").read_text() == before


def test_a_change_that_is_allowed_is_kept(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    config.objective.temperature_g = 2.0
    saved_config.claim(tmp_path, config, allow_change=True)
    assert saved_config.read_config(tmp_path).objective.temperature_g == 2.0


@pytest.mark.parametrize("field", saved_config.FREE_FIELDS)
def test_where_and_how_fast_a_run_computes_may_change(tmp_path, field):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    section, _, name = field.rpartition(".")
    place = config[section] if section else config
    place[name] = {"remat": True}.get(name) or (
        "elsewhere" if name.endswith("dir") else 1 + place[name]
    )
    saved_config.check(tmp_path, config)


def test_a_config_of_an_earlier_version_is_told_apart_by_the_field_it_lacks(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    del saved["objective"]["mask_void"]
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="objective.mask_void: None there, True now"):
        saved_config.check(tmp_path, config)


def test_a_folder_that_is_no_workdir_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json.*is not the workdir"):
        saved_config.read_config(tmp_path)
    saved_config.check(tmp_path, load_config("demo"))
    assert list(tmp_path.iterdir()) == []
