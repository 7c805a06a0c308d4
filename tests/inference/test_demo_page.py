"""The demo page: its numbers, and the page in a real browser."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import tempseg_jax
from tempseg_jax.inference import demo_page


@pytest.fixture(scope="module")
def predictor(saved_run):
    return tempseg_jax.load(saved_run)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "picture.png"
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_confidence_and_entropy_are_those_of_the_tempered_softmax(temperature):
    log_p = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    p = softmax(log_p.astype(float) / temperature, axis=-1)
    confidence, entropy = demo_page.confidence_and_entropy(log_p, temperature)
    np.testing.assert_allclose(confidence, p.max(axis=-1), rtol=1e-5)
    nats = -(p * np.log(p)).sum(axis=-1)
    np.testing.assert_allclose(entropy, nats / np.log(5), rtol=1e-5)


def test_entropy_is_one_if_uniform_and_zero_if_certain():
    uniform = np.full((1, 1, 4), np.log(0.25), np.float32)
    certain = np.array([[[0, -87, -87, -87]]], np.float32)
    assert demo_page.confidence_and_entropy(uniform, 1.0)[1] == pytest.approx(1)
    assert demo_page.confidence_and_entropy(certain, 1.0)[1] == pytest.approx(
        0, abs=1e-6
    )


def test_the_page_shows_the_labels_of_the_predictor_and_their_areas(predictor, picture):
    labels = demo_page.predict(predictor, str(picture)).labels
    np.testing.assert_array_equal(labels, predictor(picture))
    table = demo_page.area_table(predictor, labels)
    most = np.bincount(labels.ravel()).argmax()
    assert table.count("<tr>") == 1 + len(np.unique(labels))
    assert table.index(predictor.class_names[most]) < table.index("%")
    with pytest.raises(ValueError, match="lost.png"):
        demo_page.predict(predictor, "lost.png")


@pytest.fixture
def browser():
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    pytest.importorskip("selenium", reason="no selenium: pip install -e '.[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1400")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_in_a_browser_an_image_gets_its_overlay_and_temperature_changes_the_maps(
    predictor, picture, browser
):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def find(css):
        return WebDriverWait(browser, 60).until(
            lambda _: browser.find_element(By.CSS_SELECTOR, css),
        )

    def source(css):
        return find(f"{css} img").get_attribute("src")

    browser.implicitly_wait(60)
    browser.get(demo_page.serve(predictor, port=0, wait=False))
    find("#input input[type=file]").send_keys(str(picture))
    rows = find("#areas").text.splitlines()
    labels = predictor(picture)
    most = predictor.class_names[np.bincount(labels.ravel()).argmax()]
    assert rows[1].startswith(most) and rows[1].endswith("%")
    assert source("#overlay")
    before, entropy = find("#means").text, source("#entropy")
    assert "T = 1.00" in before
    number = find("#temperature input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("4", Keys.ENTER, Keys.TAB)
    WebDriverWait(browser, 60).until(lambda _: "T = 4.00" in find("#means").text)
    WebDriverWait(browser, 60).until(lambda _: source("#entropy") != entropy)

    def mean_entropy(text):
        return float(text.split("entropy ")[1].split()[0])

    assert mean_entropy(find("#means").text) > mean_entropy(before)
    severe = [x for x in browser.get_log("browser") if x["level"] == "SEVERE"]
    assert not severe
