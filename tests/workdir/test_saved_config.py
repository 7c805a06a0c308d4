import json

import pytest
from ml_collections import ConfigDict

from tempseg_jax.workdir import formats, saved_config
from tests.support import load_config

MAY_CHANGE = (
    "data.manual_dir",
    "data.data_dir",
    "data.num_workers",
    "data.cache_bytes",
    "data.tiles",
    "model.remat",
    "log_every_steps",
    "evaluate_every_epochs",
    "save_every_steps",
    "eval_batch_size",
    "writer.wandb",
)


def save_as_first_release(config, workdir, *, without=()):
    """Write config.json as the first release did, which had other fields."""
    fields = config.to_dict()
    fields["objective"]["gan"] = fields["objective"].pop("adversary")
    for path in ("objective.critic_steps", "model.discriminator", *without):
        section, name = path.split(".")
        del fields[section][name]
    (workdir / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize("name", ["demo", "resnet50_camvid"])
def test_a_workdir_gives_back_the_config_it_was_claimed_with(tmp_path, name, capsys):
    config = load_config(name)
    saved_config.claim(tmp_path / "run", config, allow_change=False)
    assert saved_config.read_config(tmp_path / "run").to_dict() == config.to_dict()
    saved_config.claim(tmp_path / "run", config, allow_change=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    assert capsys.readouterr().out == ""


def test_another_config_is_refused_by_the_fields_that_differ(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    before = (tmp_path / "config.json").read_text()
    config.objective.temperature_g = 2.0
    config.steps = 7
    message = (
        "config.json: the workdir belongs to another config .objective.temperature_g: "
        "0.5 there, 2.0 now; steps: None there, 7 now.; choose another --workdir, .*"
        "pass --allow_config_change"
    )
    for refuse in (
        lambda: saved_config.check(tmp_path, config),
        lambda: saved_config.claim(tmp_path, config, allow_change=False),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()
    assert (tmp_path / "config.json").read_text() == before


def test_a_change_that_is_allowed_is_saved(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    config.objective.temperature_g = 2.0
    saved_config.claim(tmp_path, config, allow_change=True)
    assert saved_config.read_config(tmp_path).objective.temperature_g == 2.0


@pytest.mark.parametrize("field", MAY_CHANGE)
def test_fields_that_do_not_affect_training_may_change(tmp_path, field):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    section, _, name = field.rpartition(".")
    place = config[section] if section else config
    place[name] = {"remat": True, "tiles": True, "wandb": True}.get(name) or (
        "elsewhere" if name.endswith("dir") else 1 + place[name]
    )
    saved_config.check(tmp_path, config)


def test_the_file_of_weights_may_move_to_another_folder_but_keeps_its_name(tmp_path):
    config = load_config("demo")
    config.model.pretrained = "/here/resnet50.h5"
    saved_config.claim(tmp_path, config, allow_change=False)
    for moved in ("/there/resnet50.h5", "resnet50.h5"):
        config.model.pretrained = moved
        saved_config.check(tmp_path, config)
    for other in ("/here/resnet101.h5", ""):
        config.model.pretrained = other
        with pytest.raises(
            ValueError, match="model.pretrained: '/here/resnet50.h5' th"
        ):
            saved_config.check(tmp_path, config)


@pytest.mark.parametrize("field", ["distill.teacher", "data.unlabeled_dir"])
def test_what_every_step_reads_may_not_move(tmp_path, field):
    config = load_config("demo")
    section, name = field.split(".")
    config[section][name] = "runs/a/seed0"
    saved_config.claim(tmp_path, config, allow_change=False)
    config[section][name] = "runs/b/seed0"
    with pytest.raises(ValueError, match=f"{field}: 'runs/a/seed0' there"):
        saved_config.check(tmp_path, config)


def test_lists_of_a_config_are_the_tuples_that_are_read_back(tmp_path):
    config = ConfigDict({"colors": [[0, 0, 0], [255, 0, 0]]})
    saved_config.claim(tmp_path, config, allow_change=False)
    saved_config.check(tmp_path, config)


def test_the_file_carries_the_format_number_and_the_config_does_not(tmp_path):
    saved_config.claim(tmp_path, load_config("demo"), allow_change=False)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["format"] == formats.FORMAT
    assert "format" not in saved_config.read_config(tmp_path)


def test_a_config_of_the_first_release_is_completed_and_the_changes_are_printed(
    tmp_path, capsys
):
    config = load_config("demo")
    save_as_first_release(config, tmp_path, without=["objective.mask_void"])
    before = (tmp_path / "config.json").read_text()
    completed, changes = saved_config.read_saved(tmp_path)
    assert completed.to_dict() == config.to_dict()
    assert changes == [
        "objective.gan is now objective.adversary",
        "model.discriminator = 'dcgan'",
        "objective.critic_steps = 1",
        "objective.mask_void = True",
    ]
    assert capsys.readouterr().out == ""
    assert saved_config.read_config(tmp_path).to_dict() == config.to_dict()
    (line,) = capsys.readouterr().out.splitlines()
    start = f"{tmp_path}/config.json: saved by an older version, and completed with"
    assert line.startswith(start) and line.endswith("; ".join(changes))
    assert (tmp_path / "config.json").read_text() == before


def test_a_workdir_of_the_first_release_belongs_to_the_same_config(tmp_path, capsys):
    config = load_config("demo")
    save_as_first_release(config, tmp_path)
    saved_config.claim(tmp_path, config, allow_change=False)
    assert len(capsys.readouterr().out.splitlines()) == 1
    saved_config.claim(tmp_path, config, allow_change=False)  # the format is now ours
    assert capsys.readouterr().out == ""


def test_a_workdir_of_the_first_release_is_refused_to_another_config(tmp_path):
    config = load_config("demo")
    save_as_first_release(config, tmp_path)
    config.objective.critic_steps = 5
    with pytest.raises(ValueError, match="critic_steps: 1 there, 5 now"):
        saved_config.check(tmp_path, config)


def test_a_field_that_is_missing_in_the_current_format_is_named(tmp_path):
    config = load_config("demo")
    saved_config.claim(tmp_path, config, allow_change=False)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    del saved["objective"]["mask_void"]
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="objective.mask_void: absent there, True now"):
        saved_config.check(tmp_path, config)


@pytest.mark.parametrize("number", [formats.FORMAT + 1, 0, "2", True, None])
def test_a_format_that_this_version_cannot_read_is_refused(tmp_path, number):
    config = load_config("demo")
    (tmp_path / "config.json").write_text(json.dumps({"format": number}))
    message = f"config.json: its format is {number!r}, and .* reads formats 1 to "
    for read in (
        lambda: saved_config.read_config(tmp_path),
        lambda: saved_config.check(tmp_path, config),
    ):
        with pytest.raises(ValueError, match=message):
            read()


def test_a_file_that_is_not_json_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0,')
    with pytest.raises(ValueError, match="config.json: it is not JSON .*; restore"):
        saved_config.read_config(tmp_path)


@pytest.mark.parametrize(
    "content, name",
    [
        ([1, 2], "the file"),
        (None, "the file"),
        ({"objective": None}, "objective"),
        ({"format": formats.FORMAT, "objective": None}, "objective"),
        ({"data": "voc"}, "data"),
    ],
)
def test_a_file_that_holds_no_config_is_refused_by_name(tmp_path, content, name):
    (tmp_path / "config.json").write_text(json.dumps(content))
    message = (
        f"^{tmp_path}/config.json: {name} must be a JSON object, not '.*'; restore"
    )
    with pytest.raises(ValueError, match=message):
        saved_config.read_config(tmp_path)


def test_an_upgrade_is_printed_only_for_a_file_that_can_be_read(tmp_path, capsys):
    saved_config.print_upgrade(tmp_path)
    (tmp_path / "config.json").write_text("[")
    saved_config.print_upgrade(tmp_path)
    assert capsys.readouterr().out == ""
    save_as_first_release(load_config("demo"), tmp_path)
    saved_config.print_upgrade(tmp_path)
    assert "objective.gan is now objective.adversary" in capsys.readouterr().out


def test_a_folder_that_is_not_a_workdir_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json.*is not the workdir"):
        saved_config.read_config(tmp_path)
    saved_config.check(tmp_path, load_config("demo"))
    assert list(tmp_path.iterdir()) == []


MODEL_DEFAULTS = {
    "auxiliary": False,
    "drop_connect": 0.0,
    "head": "score",
    "output_stride": None,
}


@pytest.mark.parametrize("saved, now", [(True, "dcgan"), (False, None)])
def test_a_model_of_the_first_release_names_its_discriminator(saved, now):
    model = {"name": "fcn8s", "discriminator": saved}
    completed = formats.complete(model, formats.MODEL_UPGRADES, where="model")
    expected = {"name": "fcn8s", "discriminator": now} | MODEL_DEFAULTS
    assert completed.fields == expected
    assert completed.changes == [
        "drop_connect = 0.0",
        f"discriminator: {saved} is now {now!r}",
        "auxiliary = False",
        "head = 'score'",
        "output_stride = None",
    ]
    again = {"format": formats.FORMAT} | completed.fields
    unchanged = formats.complete(again, formats.MODEL_UPGRADES, where="model")
    assert unchanged.fields == completed.fields and not unchanged.changes


@pytest.mark.parametrize("value", ["dcgan", None, [1]])
def test_a_value_that_no_upgrade_foresees_is_kept(value):
    model = {"discriminator": value} | MODEL_DEFAULTS
    completed = formats.complete(model, formats.MODEL_UPGRADES, where="model")
    assert completed.fields == model and not completed.changes


def test_a_format_that_changes_nothing_for_one_kind_of_file_needs_no_entry():
    completed = formats.complete({"name": "fcn8s"}, {}, where="model")
    assert completed.fields == {"name": "fcn8s"} and not completed.changes


def test_hosts_may_differ_in_where_data_and_weights_are_and_in_nothing_else():
    config, other = load_config("demo"), load_config("demo")
    fields = saved_config.common_to_hosts(config)
    other.data.data_dir, other.data.num_workers = "/scratch/data", 7
    config.model.pretrained, other.model.pretrained = "/a/x.h5", "/b/x.h5"
    assert saved_config.common_to_hosts(other) == saved_config.common_to_hosts(config)
    other.save_every_steps = 7  # may change at a resume, but not between hosts
    config.model.pretrained = other.model.pretrained = ""
    changed = saved_config.common_to_hosts(other)
    assert [x for x in fields if fields[x] != changed[x]] == ["save_every_steps"]
