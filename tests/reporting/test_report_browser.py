"""The page in headless Chromium: what it complains of, loads and filters."""

import re

import cv2
import numpy as np
import pytest
from headless_chromium import Page, find_chromium
from report_toys import (
    DATASET,
    made_up_content,
    near_labels,
    write_config,
    write_metrics,
    write_predictions,
)

from d2pd.data.records import load_records
from d2pd.reporting.report.page import render_page
from d2pd.reporting.report.write import write_report

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium here: apt-get install chromium"
)

SHOWN = "[...document.querySelectorAll('.card')].filter((card) => card.offsetParent).length"
CHOOSE = """(() => {{
  const element = document.querySelector('.filter').elements['{name}'];
  element.value = '{value}';
  element.dispatchEvent(new Event('input', {{ bubbles: true }}));
}})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page
    assert page.process.poll() is not None


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_opts):
    folder = tmp_path_factory.mktemp("run")
    write_config(folder, quick_opts)
    write_metrics(folder, stopped="AP stands still")
    write_predictions(folder, near_labels(load_records(DATASET, cleaned=False)))
    return write_report(folder, quiet=True)


@pytest.fixture
def made_up(tmp_path, page):
    path = tmp_path / "page.html"
    path.write_text(render_page(made_up_content(6)), encoding="utf-8")
    page.open(path)
    return page


def choose(page, name, value):
    page.run(CHOOSE.format(name=name, value=value))
    return page.run(SHOWN)


def background(page):
    return page.run("getComputedStyle(document.body).backgroundColor")


def brightness(color):
    return sum(int(number) for number in re.findall(r"\d+", color)[:3])


def test_report_of_a_run_opens_without_complaint_or_network_and_loads_its_pictures(run, page):
    page.open(run)

    widths = page.run("[...document.images].map((image) => image.complete && image.naturalWidth)")

    assert widths
    assert min(widths) > 0
    assert page.requests() == [run.as_uri()]
    assert page.complaints() == []
    assert page.run(SHOWN) == len(widths)


def test_hostile_texts_do_nothing_and_stand_there(made_up):
    assert made_up.run("document.title") != "taken"
    assert "<script>document.title='taken'</script>" in made_up.run(
        "document.querySelector('h1').textContent"
    )
    assert made_up.complaints() == []


def test_the_policy_is_enforced_by_the_browser(made_up):
    made_up.run(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    assert any("Content Security Policy" in words for words in made_up.complaints())


def test_filter_by_kind_reason_subset_height_and_score(made_up):
    assert made_up.run(SHOWN) == 6
    assert choose(made_up, "kind", "miss") == 3
    assert choose(made_up, "band", "55 to 115 px") == 1
    assert made_up.run("document.querySelector('.count').textContent") == "1 of 6 shown"
    assert choose(made_up, "split", "day") == 0
    assert made_up.run("document.querySelector('.nothing').offsetParent !== null")
    made_up.run("document.querySelector('.filter button[type=reset]').click()")
    assert made_up.run(f"new Promise((done) => setTimeout(() => done({SHOWN}), 50))") == 6
    assert choose(made_up, "split", "day") == 3
    assert choose(made_up, "score", "0.3") == 2  # of .1, .3 and .5
    assert choose(made_up, "reason", "too small") == 0
    assert choose(made_up, "split", "") == 3  # a miss has no score and fits any


def test_filter_works_by_keyboard(made_up):
    made_up.run("document.querySelector('.filter select').focus()")
    for kind in ("keyDown", "keyUp"):
        made_up.send("Input.dispatchKeyEvent", type=kind, key="m", text="m" * (kind == "keyDown"))
    assert made_up.run("document.querySelector('.filter select').value") == "miss"
    assert made_up.run(SHOWN) == 3


def test_click_shows_the_whole_frame_with_its_boxes(made_up):
    made_up.run("document.querySelector('.card .open').click()")
    inside = "document.querySelector('#viewer')"

    assert made_up.run(f"{inside}.open")
    assert made_up.run(f"{inside}.querySelector('svg').getAttribute('viewBox')") == "0 0 160 120"
    image = f"{inside}.querySelector('img')"
    assert made_up.run(f"{image}.decode().then(() => {image}.naturalWidth)") == 160
    made_up.run(f"{inside}.querySelector('[data-step=\"1\"]').click()")
    assert made_up.run(f"{inside}.querySelector('.viewer-count').textContent") == "2 of 6"
    made_up.run("document.getElementById('show-boxes').click()")
    assert made_up.run(f"getComputedStyle({inside}.querySelector('svg')).display") == "none"
    made_up.run(f"{inside}.querySelector('[data-close]').click()")
    assert not made_up.run(f"{inside}.open")
    assert made_up.complaints() == []


def test_light_and_dark_by_the_system_and_by_choice(made_up):
    colors = {}
    for scheme in ("light", "dark"):
        made_up.use_scheme(scheme)
        colors[scheme] = background(made_up)
    assert brightness(colors["light"]) > 600
    assert brightness(colors["dark"]) < 150

    made_up.use_scheme("light")
    made_up.run(
        "theme.value = 'dark'; theme.dispatchEvent(new Event('change')); localStorage.clear()"
    )
    assert background(made_up) == colors["dark"]


def test_chart_tells_the_values_under_the_pointer_and_hides_lines(made_up):
    made_up.run(
        """(() => {
          const plot = document.querySelector('.plot'), frame = plot.getBoundingClientRect();
          plot.dispatchEvent(new PointerEvent('pointermove', {
            clientX: frame.left + frame.width * 0.55, clientY: frame.top + 20,
          }));
        })()"""
    )
    tip = "document.getElementById('tip')"
    assert made_up.run(f"{tip}.textContent").endswith(": 0.5")
    assert not made_up.run(f"{tip}.hidden")
    made_up.run("document.querySelector('.legend button').click()")
    assert made_up.run("getComputedStyle(document.querySelector('.series')).display") == "none"


def test_narrow_screen_needs_no_scrolling_sideways(run, page):
    page.use_width(400)
    page.open(run)

    assert page.run("document.documentElement.scrollWidth") <= 400
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 400
    assert picture.std() > 10  # something is drawn
    page.use_width(1280)
