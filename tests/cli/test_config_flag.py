"""One-line messages for the errors that a user's config file raises."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from tempseg_jax.cli import config_flag

CHANGE = """
from configs import demo
def get_config():
    config = demo.get_config()
    {}
    return config
"""
IN_A_FILE = {
    CHANGE.format("config.objective.temprature_g = 1.0"): "the config has no field "
    "'temprature_g'; did you mean 'temperature_g'?",
    CHANGE.format("config.objective['temprature_g'] = 1.0"): "the config has no field "
    "'temprature_g'; did you mean 'temperature_g'?",
    CHANGE.format("config.epochs = config.epoch + 1"): "the config has no field "
    "'epoch'; did you mean 'epochs'?",
    CHANGE.format("config.zzz = 1"): "the config has no field 'zzz'; --mode=describe "
    "of tempseg_jax.main lists all fields",
    CHANGE.format("None.foo"): "'NoneType' object has no attribute 'foo'",
    CHANGE.format("{}['foo']"): "'foo'",
    CHANGE.format("foo"): "name 'foo' is not defined",
    CHANGE.format("1 + 'a'"): "unsupported operand type(s) for +: 'int' and 'str'",
    CHANGE.format("int('x')"): "invalid literal for int() with base 10: 'x'",
    "def get_config(:": "invalid syntax (mine.py, line 1)",
    "import configs.no_such_module": "No module named 'configs.no_such_module'",
    "import no_such_module": "No module named 'no_such_module'",
    "x = 1": "mine.py does not define the function get_config()",
}


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Parse the flags of a command whose config file has this content."""

    def parse(content, *arguments):
        path = tmp_path / "mine.py"
        path.write_text(content)
        values = flags.FlagValues()
        config = config_flags.DEFINE_config_file("config", flag_values=values)
        flags.DEFINE_bool("debug", False, "Traceback.", flag_values=values)
        argv = ["main", f"--config={path}", *arguments]
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.setattr(sys, "argv", argv)
        sys.modules.pop("config_config", None)  # or the file is executed in it again
        return config_flag.parse(argv, config), config.value

    return parse


@pytest.mark.parametrize("content", IN_A_FILE)
def test_an_error_in_a_config_file_is_one_line(parse, content, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        parse(content)
    message = str(stop.value.code)
    assert message.startswith("error: --config: ") and "\n" not in message
    assert message.endswith(IN_A_FILE[content])
    if content.startswith(("import", CHANGE[:20])):
        number = 1 if content.startswith("import") else 5
        assert f": {tmp_path / 'mine.py'}, line {number}: " in message
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "content, error",
    [
        ("import no_such_module", ImportError),
        (CHANGE.format("config.zzz = 1"), AttributeError),
        (CHANGE.format("1 + 'a'"), flags.Error),
    ],
)
def test_debug_shows_its_traceback(parse, content, error):
    with pytest.raises(error):
        parse(content, "--debug")


def test_another_folder_named_configs_is_named_with_the_remedies(
    parse, tmp_path, monkeypatch
):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    # An editable installation finds the project's modules nevertheless.
    finders = [x for x in sys.meta_path if "_frozen_importlib" in x.__module__]
    monkeypatch.setattr(sys, "meta_path", finders)
    for name in [x for x in sys.modules if x.split(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    for imports in ("from configs import demo", "import configs.demo"):
        with pytest.raises(SystemExit) as stop:
            parse(imports)
        assert str(stop.value.code).startswith("error: --config: ")
        assert str(stop.value.code).endswith(
            "; another folder named configs hides the project's: run tempseg instead "
            "of python -m tempseg_jax.main, or rename the folder"
        )
    sys.modules.pop("configs", None)


def test_an_override_is_named_and_a_good_file_is_read(parse):
    good = CHANGE.format("config.epochs = 7")
    rest, config = parse(good, "--config.seed=3", "extra")
    assert rest == ["main", "extra"] and (config.epochs, config.seed) == (7, 3)
    with pytest.raises(SystemExit, match="^error: --config.objective.alpa: .*'alpha'"):
        parse(good, "--config.objective.alpa=1")
    with pytest.raises(SystemExit, match="^FATAL Flags parsing error: Unknown command"):
        parse(good, "--wokdir=x")
