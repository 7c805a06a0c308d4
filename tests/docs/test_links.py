"""Links and names in the documentation: what they refer to exists."""

import importlib
import re

import pytest

from tests.support import ROOT, load_config

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FILE_NAMES = ("py", "json", "jsonl", "md", "npz", "h5")


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    pattern = r"(?<![\w/])(?:tempseg_jax|tests|scripts|docs)/[\w/.-]+\.(?:py|md|yml)"
    names = set(re.findall(pattern, page.read_text()))
    assert not [name for name in names if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", ["architecture", "extending"])
def test_dotted_names_are_names_of_the_package_or_fields_of_the_config(page):
    text = without_code((ROOT / f"docs/{page}.md").read_text())
    dotted = r"`((?!jax\.|optax\.|tempseg_jax\.)[a-z_]+(?:\.\w+)+)`"
    names = set(re.findall(dotted, text))
    names = {name for name in names if name.rpartition(".")[2] not in FILE_NAMES}
    assert names
    assert not [name for name in names if not is_in_package(name) | is_field(name)]


def is_in_package(name):
    """Whether a module has this name; pages leave out some folders' names."""
    module, _, attribute = name.rpartition(".")
    for folder in ("", "data.", "evaluation."):
        try:
            if hasattr(
                importlib.import_module(f"tempseg_jax.{folder}{module}"), attribute
            ):
                return True
        except ModuleNotFoundError:
            continue
    return False


def is_field(name):
    config = load_config("fcn_voc").to_dict()
    for part in name.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True
