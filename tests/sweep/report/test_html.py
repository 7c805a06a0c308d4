"""The HTML page and scripts/report.py."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tempseg_jax.sweep.report import build, examples, html
from tempseg_jax.sweep.report.view import TextTable
from tests.support import ROOT, load_config
from tests.sweep.report.fake_sweep import NAMES, write_sweep


def body(page):
    """Return the page without its <style>."""
    return page.partition("</style>")[2]


def test_names_are_escaped(tmp_path):
    names = ["<b>&\"'", *NAMES[1:]]
    sweep = write_sweep(tmp_path, seeds=2, class_names=names)
    page = html.to_html(build.build(sweep), sweep)
    assert "<b>&" not in page
    # In a row of the table, and in the legend of the example images.
    escaped = "&lt;b&gt;&amp;&#34;&#39;"
    assert f'<td data-label="class"><span>{escaped}</span></td>' in page
    assert f"</i>{escaped}</span>" in page


def test_every_value_of_a_report_is_escaped(full, full_report):
    bad = '<b>&"'
    table = TextTable(bad, (bad, bad), [(bad, bad)], bad)
    section = build.Section(bad, [bad], [table, table._replace(rows=[])], [])
    figure = build.Figure("data:,", bad)
    report = full_report._replace(
        title=bad,
        facts=[(bad, bad)],
        state=bad,
        missing=[bad],
        sections=[section._replace(figures=[figure])],
        comparison=examples.Comparison(
            bad, bad, 0, [examples.Disagreement(bad, 0.5, [(bad, "data:,")])]
        ),
    )
    page = html.to_html(report, full)
    assert "<b>" not in page and '&"' not in page
    assert page.count("&lt;b&gt;&amp;&#34;") == 28
    page = html.to_html(report._replace(comparison=bad), full)
    assert "<b>" not in page


def test_symbols_of_the_paper_have_subscripts(full, full_report):
    page = body(html.to_html(full_report, full))
    assert "<i>T</i><sub>G</sub> = 0.5" in page
    text = re.sub(r'(alt|data-label)="[^"]*"', "", page)  # no markup in attributes
    assert not re.search(r"[TL]_(G|D|seg|adv)\b", text)


def test_intervals_that_exclude_zero_are_bold(full, full_report):
    page = html.to_html(full_report, full)
    marked = re.findall(r'<td[^>]*class="number significant"><span>([^<]*)<', page)
    assert marked and all(" *" in text for text in marked)
    assert len(marked) == build.to_markdown(full_report).count("] * |")
    assert "td.significant { font-weight: 700; }" in page


def test_the_legend_has_the_color_of_each_outcome(full, full_report):
    comparison = examples.Comparison("one", "other", 0, [])
    page = html.to_html(full_report._replace(comparison=comparison), full)
    for name, color in (
        ("only one is correct", examples.FIRST_CORRECT),
        ("only other is correct", examples.SECOND_CORRECT),
        ("both are wrong, with different classes", examples.BOTH_WRONG),
    ):
        red, green, blue = color
        assert f'background:rgb({red},{green},{blue})"></i>{name}</span>' in page


def test_missing_runs_are_linked_from_the_top(tmp_path):
    sweep = write_sweep(tmp_path, runs=[])
    page = html.to_html(build.build(sweep), sweep)
    assert '<a href="#missing">' in page and '<section id="missing">' in page


def test_a_complete_sweep_has_no_section_of_missing_runs(full, full_report):
    assert "missing" not in body(html.to_html(full_report, full))


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script(full, full_report):
    page = html.to_html(full_report, full)
    assert not re.search(r'(src|href)="(?!data:|#missing")', page)
    assert "<script" not in page and "url(" not in page and "@import" not in page


def test_only_the_file_name_of_pretrained_weights_is_published(tmp_path):
    for given, shown in (("/home/me/vgg16.npz", "vgg16.npz"), ("keras_vgg16", None)):
        config = load_config("demo")
        config.model.pretrained = given
        sweep = write_sweep(tmp_path / (shown or given), runs=[], config=config)
        report = build.build(sweep)
        assert dict(report.facts)["pretrained weights"] == (shown or given)
        assert "/home/me" not in html.to_html(report, sweep)


def test_the_template_is_declared_as_package_data():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package_data = settings["tool"]["setuptools"]["package-data"]
    folder = Path(html.__file__).parent
    matched = {
        path
        for package, patterns in package_data.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    assert folder / html.TEMPLATE in matched


PROBE = """<script>
const errors = [];
window.onerror = (message) => errors.push(message);
window.onload = () => {
  const images = [...document.images];
  document.body.dataset.measured = JSON.stringify({
    errors: errors,
    tables: [...document.querySelectorAll("table")].filter(
      (x) => x.offsetHeight > 0).length,
    images: images.length,
    drawn: images.filter((x) => x.complete && x.naturalWidth > 20).length,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  });
};
</script></head>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 500])  # the narrowest that chromium opens
def test_a_browser_shows_tables_and_figures(full, full_report, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium: install it to test the page in a browser")
    path = tmp_path / "page.html"
    page = html.to_html(full_report, full)
    path.write_text(page.replace("</head>", PROBE, 1))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}"]
    process = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert 'data-measured="' in process.stdout, process.stderr
    (measured,) = re.findall(r'data-measured="([^"]*)"', process.stdout)
    measured = json.loads(measured.replace("&quot;", '"'))
    assert measured["errors"] == []
    assert measured["tables"] == page.count("<table") > 10
    assert measured["images"] == measured["drawn"] == page.count("<img") > 20
    assert measured["overflow"] <= 0


def test_the_script_writes_page_and_markdown_and_prints_missing_runs(tmp_path):
    write_sweep(tmp_path / "sweep", runs=[])
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), "--block=3"]
    command += [str(tmp_path / "sweep"), f"--out={tmp_path / 'a' / 'page.html'}"]
    command += [f"--markdown={tmp_path / 'tables.md'}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "12 of 12 runs are missing." in process.stdout
    assert "missing: T_G = 2: seeds 0 to 2 not started\n" in process.stdout
    for name in ("a/page.html", "tables.md"):
        assert "blocks of 3 neighboring images" in (tmp_path / name).read_text()
