"""The page in a real browser: what a person does, and that nothing foreign runs in it."""

from __future__ import annotations

import shutil
import statistics
import threading
import time

import pytest

from reference.pages import NAMES, model_with_heads, noise, serving, small_model

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="there is no Chromium with its driver here"
    ),
]

READY = "/ready\\.$/.test(document.getElementById('status').textContent)"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,1000",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """A browser with a page open."""

    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def js(self, code, *given):
        return self.driver.execute_script(code, *given)

    def wait(self, condition, seconds=60.0):
        until = time.monotonic() + seconds
        while not self.js(f"return {condition}"):
            words = self.js("return document.body.innerText")
            assert time.monotonic() < until, f"{condition} did not come true: {words}"
            time.sleep(0.02)

    def click(self, selector, number=0):
        self.js("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, number)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).innerText", selector)

    def open(self, address):
        self.driver.get(address)
        self.wait("document.body?.dataset.ready === 'yes'")

    def errors(self):
        return [
            line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"
        ]


@pytest.fixture
def browser(tmp_path, served):
    found = Browser(tmp_path / "profile")
    found.open(served.address + "/#methods=gradcam&methods=saliency")
    yield found
    found.driver.quit()


def upload(browser, tmp_path, name="cat.png"):
    path = tmp_path / name
    path.write_bytes(noise((96, 64)))
    browser.driver.find_element("id", "file").send_keys(str(path))
    browser.wait(READY)


def test_from_upload_to_picture_and_what_can_be_taken_along(browser, tmp_path, served):
    upload(browser, tmp_path)
    assert browser.js("return document.querySelectorAll('#cards .card canvas').length") == 2
    seen = browser.js(
        "const c = document.querySelector('#cards canvas');"
        "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert seen > 50  # a picture, not a blank
    assert "camlucida explain cat.png" in browser.js(
        "return document.getElementById('command').textContent"
    )
    href = browser.js("return document.getElementById('take-png').getAttribute('href')")
    assert served.ask("GET", href)[2].startswith(b"\x89PNG")
    assert not browser.errors()


DROP = """
    const transfer = new DataTransfer(), place = document.getElementById("drop");
    if (arguments[0]) transfer.items.add(new File([new Uint8Array(arguments[0])], arguments[1]));
    else transfer.setData("text/plain", arguments[1]);
    for (const kind of ["dragover", "drop"])
        place.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
"""


def test_a_photo_is_dropped(browser):
    browser.js(DROP, list(noise((96, 64))), "dropped.png")
    browser.wait(f"{READY} && document.getElementById('photo-name').textContent === 'dropped.png'")
    assert browser.js("return document.querySelectorAll('#cards .card canvas').length") == 2
    assert not browser.errors()
    browser.js(DROP, list(b"no photo"), "letter.txt")
    browser.wait("/not an image/.test(document.getElementById('trouble').textContent)")
    assert browser.text("#photo-name") == "dropped.png"
    browser.js(DROP, None, "words")
    browser.wait("/No file/.test(document.getElementById('trouble').textContent)")


def choose(browser, name, value):
    browser.js(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change'))",
        name,
        value,
    )
    browser.wait(READY)


def test_outputs_and_models_are_chosen_and_stand_beside_each_other(tmp_path):
    from camlucida.app.question import Written
    from camlucida.app.studio import Studio

    studio = Studio([model_with_heads(), small_model()], [Written("two"), Written("small")])
    page, end = serving(studio)
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page.address + "/#photo=sample:lion&methods=gradcam")
        browser.wait(READY)
        heads = "return [...document.getElementById('head').options].map(one => one.textContent)"
        assert browser.js(heads) == ["kind", "more.0"]
        browser.click("#keep")
        choose(browser, "head", "1")
        browser.wait("document.querySelectorAll('.prediction').length === 2")
        browser.click("#keep")
        choose(browser, "model", "2")
        browser.wait("document.querySelectorAll('.prediction').length === 4")
        assert not browser.js("return document.getElementById('heads').checkVisibility()")
        kept = browser.js("return [...document.querySelectorAll('.keeping')].map(k => k.innerText)")
        assert ["more.0" in words for words in kept] == [True, False]
        browser.click("#zoom-in")
        assert browser.js("return document.querySelectorAll('.map.zoomed').length") == 3
        browser.click("#others summary")
        browser.wait(
            "/Does not fit this model/.test(document.getElementById('all-methods').innerText)"
        )
        assert not browser.errors()
    finally:
        browser.driver.quit()
        end()


def test_names_that_are_markup_stay_names(browser, tmp_path):
    upload(browser, tmp_path, "<img src=x onerror=alert(1)>.png")
    assert browser.text("#photo-name") == "<img src=x onerror=alert(1)>.png"
    names = browser.js(
        "return [...document.querySelectorAll('.prediction .name')].map(n => n.textContent)"
    )
    assert NAMES[0] in names
    assert browser.driver.title == "camlucida"
    assert not browser.errors()


def test_class_and_rival(browser, tmp_path):
    upload(browser, tmp_path)
    rows = browser.js(
        "return [...document.querySelectorAll('.prediction .name')].map(n => n.textContent)"
    )
    browser.js("document.querySelectorAll('.prediction')[1].querySelectorAll('button')[1].click()")
    browser.wait(f"{READY} && /and not/.test(document.getElementById('sentence').textContent)")
    assert browser.text("#sentence") == f"Why “{rows[0]}” and not “{rows[1]}”?"
    assert f"for {rows[1]}" in browser.text("#scale")
    browser.js(
        "const c = document.getElementById('class'); c.value = arguments[0]; c.dispatchEvent(new Event('change'))",
        rows[2],
    )
    browser.wait(f"document.getElementById('sentence').textContent.includes({rows[2]!r})")


def test_the_threshold_tells_area_and_overlap_as_the_metrics_do(studio, browser, tmp_path):
    from dataclasses import replace

    import numpy as np
    import torch

    from camlucida.metrics import iou

    upload(browser, tmp_path)
    key = browser.js("return new URLSearchParams(location.hash.slice(1)).get('photo')")
    photo = studio.album[key]
    studio.album._read.add(replace(photo, boxes=((20, 10, 60, 50),)), key)
    browser.click("#signed")  # another question, now of the photo with its box
    browser.wait(READY)
    time.sleep(0.3)
    browser.wait(READY)
    browser.js(
        "const t = document.getElementById('threshold'); t.value = 40; t.dispatchEvent(new Event('input'))"
    )
    browser.wait("document.querySelector('#cards .area').textContent !== ''")
    said = browser.text("#cards .area")
    keys = browser.js(
        "return new URLSearchParams(document.getElementById('take-json').search).getAll('key')"
    )
    (answer,) = studio.kept(keys[:1])
    maps = answer.explanation.maps.abs()
    cut = 0.4 * float(maps.max())
    mask = torch.from_numpy(np.array(studio.values.get(studio.mask(answer)))) > 0
    assert f"{float((maps >= cut).float().mean()):.1%}".replace("%", " %") in said
    assert f"IoU with the object {float(iou(maps, mask[None], cut)[0]):.3f}" in said


def test_a_map_is_checked_while_one_looks(browser, tmp_path):
    upload(browser, tmp_path)
    browser.click(".checking button")
    browser.wait("document.querySelector('#cards .curve .line')?.getAttribute('d')")
    browser.wait("document.querySelector('.checking button').textContent === 'Check again'")
    assert "Does the map depend on what the model has learned?" in browser.text("#cards .checks")
    assert not browser.errors()


def test_a_wall_is_drawn_with_the_pointer(browser, tmp_path):
    from selenium.webdriver import ActionChains

    upload(browser, tmp_path)
    place = browser.driver.find_element("css selector", "#cards .map")
    browser.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", place)
    browser.click(".checking .quiet")
    chain = ActionChains(browser.driver).move_to_element(place).click_and_hold()
    chain.move_by_offset(30, 25).release().perform()
    browser.wait("document.querySelector('#cards .checks .check')")
    assert "Behind a wall in front of rows" in browser.text("#cards .checks")
    browser.wait("document.querySelector('#cards .card.small canvas')")
    assert not browser.errors()


def test_two_faces_are_compared(browser):
    pytest.importorskip("dlib")
    browser.click("#tab-faces")
    browser.click("#panel-faces .drop:nth-of-type(1) .samples button", 0)
    browser.click("#panel-faces .drop:nth-of-type(2) .samples button", 2)
    browser.js("document.querySelector('#panel-faces select').value = 'gradcam'")
    browser.click("#panel-faces .ask button")
    browser.wait("document.querySelectorAll('#panel-faces .face img').length === 6")
    assert "do not match" in browser.text("#panel-faces .verdict")
    assert "does not show" in browser.text("#panel-faces .care")
    assert not browser.errors()


def test_a_link_restores_the_state(browser, tmp_path):
    upload(browser, tmp_path)
    browser.js("document.querySelectorAll('.prediction')[1].querySelectorAll('button')[1].click()")
    browser.wait(f"{READY} && /and not/.test(document.getElementById('sentence').textContent)")
    browser.js(
        "const o = document.getElementById('opacity'); o.value = 90; o.dispatchEvent(new Event('input'))"
    )
    link, sentence = browser.driver.current_url, browser.text("#sentence")
    browser.driver.switch_to.new_window("tab")
    browser.open(link)
    browser.wait(READY)
    assert browser.text("#sentence") == sentence
    assert browser.js("return document.getElementById('opacity').value") == "90"


def test_two_tabs_at_once_get_their_own_answers(browser, tmp_path, served):
    upload(browser, tmp_path)
    first, of_first = browser.driver.current_window_handle, browser.text("#predictions")
    browser.driver.switch_to.new_window("tab")
    browser.open(served.address + "/#photo=sample:lion&methods=gradcam&methods=fame:iterations=60")
    second = browser.driver.current_window_handle
    browser.driver.switch_to.window(first)
    browser.click("#signed")
    browser.wait(READY)
    assert browser.text("#predictions") == of_first
    browser.driver.switch_to.window(second)
    browser.wait(READY)
    assert "lion" in browser.text("#photo-name")


def test_a_closed_browser_frees_the_model(browser, served):
    browser.open(served.address + "/#photo=sample:lion&methods=fame:iterations=100000")
    browser.driver.get(served.address + "/#photo=sample:lion&methods=fame:iterations=100001")
    browser.wait("document.querySelector('#cards progress')?.value > 0")
    assert served.studio.desk.state["running"] == 1
    browser.driver.quit()
    until = time.monotonic() + 20
    while served.studio.desk.state["running"] and time.monotonic() < until:
        time.sleep(0.05)
    assert served.studio.desk.state == {"running": 0, "waiting": 0}


def test_every_control_is_named_and_reached_by_the_keyboard(browser, tmp_path):
    upload(browser, tmp_path)
    unnamed = browser.js(
        "return [...document.querySelectorAll('button, input, select, a, canvas[role=img], [role=tab]')]"
        ".filter(e => e.checkVisibility())"
        ".filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.querySelector('[alt]')))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    browser.js("document.querySelector('#cards canvas').focus()")
    from selenium.webdriver.common.keys import Keys

    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT, "+")
    values = browser.js(
        "return [...document.querySelectorAll('#cards .value')].map(v => v.textContent)"
    )
    assert all(values)
    assert browser.js("return document.querySelectorAll('#cards .map.zoomed').length") == 2
    browser.click("#zoom-none")
    browser.click("#zoom-in")  # about the middle
    off = browser.js(
        "const [a, b] = ['#cards .map', '#cards canvas'].map(s => document.querySelector(s).getBoundingClientRect());"
        "return [a.x + a.width / 2 - b.x - b.width / 2, a.y + a.height / 2 - b.y - b.height / 2]"
    )
    assert max(map(abs, off)) < 1
    browser.js("document.querySelector('input[data-method=\"gradcam\"]').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    browser.wait(READY)
    assert browser.js("return document.activeElement.dataset.method") == "gradcam"
    browser.js("document.querySelectorAll('.prediction')[1].querySelector('button').focus()")
    name = browser.js("return document.activeElement.getAttribute('aria-label')")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(f"{READY} && document.querySelector('.prediction:nth-child(2).mine')")
    assert browser.js("return document.activeElement.getAttribute('aria-label')") == name
    browser.js("document.getElementById('tab-maps').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert browser.js("return document.body.dataset.tab") == "layers"


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_wider_than_the_screen(browser, tmp_path, width):
    upload(browser, tmp_path)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for name in ("maps", "layers", "pixels", "faces"):
        browser.click(f"#tab-{name}")
        assert browser.js("return document.documentElement.scrollWidth") <= width


def test_the_page_answers_while_the_model_works(served):
    question = b'{"photo": "sample:lion", "methods": ["fame:iterations=100000"]}'
    job = threading.Thread(
        target=lambda: served.ask("POST", "/api/jobs/explain", question), daemon=True
    )
    job.start()
    while not served.studio.desk.state["running"]:
        time.sleep(0.01)
    statuses, times = [], []

    def ask():
        started = time.monotonic()
        statuses.append(served.ask("GET", "/")[0])
        times.append(time.monotonic() - started)

    for _ in range(4):
        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    print(f"p95 of 50 at a time: {statistics.quantiles(times, n=20)[-1]:.3f} s")
