"""The page of an audit: what stands on it, what hostile names do, how boxes lie on pictures."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from headless_chromium import Page, find_chromium
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.audit.audit import audit_table, with_picture_sizes
from d2pd.data.audit.findings import Audit
from d2pd.data.audit.pictures import look_at_pictures
from d2pd.data.audit.rules import RULES
from d2pd.data.label_table.read import read_label_table
from d2pd.errors import UserError
from d2pd.reporting.audit_page.cards import FindingCards, view_beyond
from d2pd.reporting.audit_page.distributions import centre_grid, count_bars, size_charts
from d2pd.reporting.audit_page.gather import gather
from d2pd.reporting.audit_page.places import Places
from d2pd.reporting.audit_page.write import render_audit, write_audit_page

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>' & \\"
ROWS = (
    ("a.png", 5, 5, 25, 45, "person"),
    ("a.png", 50, 20, 80, 40, "person"),  # beyond 64, and so is its centre
    ("a.png", 30, 10, 30, 20, "person"),  # no area
    ("b.png", 10, 10, 20, 40, "face"),
    ("b.png", 10, 10, 20, 40, "face"),
)


def read(folder: Path, rows):
    path = folder / "labels.csv"
    lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
    path.write_text("filename,x1,y1,x2,y2,class\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return read_label_table(path)


def look_through(folder: Path, rows=ROWS) -> tuple[Audit, list]:
    """Give an audit with its pictures, all 48 x 64 px, and their files."""
    for name in {row[0] for row in rows}:
        cv2.imencode(".png", np.full((48, 64, 3), 90, np.uint8))[1].tofile(folder / name)
    table = read(folder, rows)
    found = look_at_pictures(table, folder, quiet=True)
    table = with_picture_sizes(table, found.sizes)
    conditions = {"images": str(folder)}
    return audit_table(table, of_pictures=found.findings, conditions=conditions), found.paths


@pytest.fixture
def looked_through(tmp_path):
    return look_through(tmp_path)


def test_every_rule_with_findings_stands_there_with_its_effects_and_pictures(looked_through):
    content = gather(*looked_through, max_pictures=5, quiet=True)
    assert content.status == "errors"
    counts = {rule.name: (rule.count, len(rule.cards)) for rule in content.rules}
    found = ("degenerate_box", "outside_image", "centre_outside_image", "duplicate_box")
    assert counts == dict.fromkeys(found, (1, 1))
    assert set(content.clean) == set(RULES) - set(counts)
    page = render_audit(content)
    for name in counts:
        assert f"<code>{name}</code>" in page
        assert RULES[name].ssd.replace("'", "&#39;") in page
    assert len(content.frames) == 2
    assert page.count('<li class="card ') == 4


def test_a_card_holds_the_boxes_of_its_image_and_marks_the_one_found(looked_through):
    audit, paths = looked_through
    (card,) = FindingCards(audit, paths).draw(5, quiet=True)["degenerate_box"]
    assert card.reason == "person, row 4"
    assert card.lines == ("has no area (0 x 10 px)", "[30, 10, 30, 20]")
    assert card.image_size == (48, 64)
    assert [(box.xywh, box.text, box.is_subject) for box in card.boxes] == [
        ((5.0, 5.0, 20.0, 40.0), "person", False),
        ((50.0, 20.0, 30.0, 20.0), "person", False),
        ((30.0, 10.0, 1.0, 10.0), "person", True),  # a box without width would not be seen
    ]
    assert card.crop.startswith("data:image/jpeg;base64,")


def test_one_card_an_image_and_as_many_as_asked_for(tmp_path):
    rows = [(f"{image}.png", 5, 5, 5, 9, "person") for image in range(5) for _ in range(2)]
    audit, paths = look_through(tmp_path, rows)
    for most, expected in ((0, []), (3, "012"), (9, "01234")):
        cards = FindingCards(audit, paths).draw(most, quiet=True)["degenerate_box"]
        assert [card.image_name for card in cards] == [f"{number}.png" for number in expected]


def test_a_picture_that_is_gone_is_a_card_without_one(looked_through, tmp_path):
    (tmp_path / "a.png").unlink()
    (card,) = FindingCards(*looked_through).draw(5, quiet=True)["degenerate_box"]
    assert (card.crop, card.frame) == ("", "")
    assert "No such file" in card.trouble
    assert "no picture" in render_audit(gather(*looked_through, max_pictures=5, quiet=True))


def test_without_pictures_the_page_says_how_to_get_them(tmp_path):
    content = gather(audit_table(read(tmp_path, ROWS)), max_pictures=5, quiet=True)
    assert content.frames == {}
    assert "--images DIR does both" in content.absent[0]
    assert "2 of the images are of unknown size" in content.absent[1]
    assert "missing_image" not in content.clean
    assert content.grid is None


def test_at_night_the_thermal_frame_is_shown(tmp_path):
    images = [{"id": 0, "im_name": "set03/V000/I00001"}, {"id": 1, "im_name": "set00/V000/I00001"}]
    boxes = [
        {"id": image, "image_id": image, "category_id": 1, "bbox": [9, 9, 0, 9]} for image in (0, 1)
    ]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    for image in images:
        for camera in ("visible", "lwir"):
            file = tmp_path / f"{image['im_name'].replace('V000/', f'V000/{camera}/')}.png"
            file.parent.mkdir(parents=True)
            cv2.imwrite(str(file), np.zeros((512, 640, 3), np.uint8))
    table = read_label_table(path)
    found = look_at_pictures(table, tmp_path, quiet=True)
    cards = FindingCards(audit_table(table), found.paths).draw(5, quiet=True)["degenerate_box"]
    assert [card.lines[-1] for card in cards] == ["lwir picture", "visible picture"]


@given(
    st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
def test_view_of_any_box_has_an_area_and_stays_near_the_picture(box, size):
    height, width = size
    x, y, w, h = view_beyond(box, size)
    assert w >= 1
    assert h >= 1
    assert x >= -np.ceil(width / 2)
    assert y >= -np.ceil(height / 2)
    assert x + w <= width + np.ceil(width / 2)
    assert y + h <= height + np.ceil(height / 2)


def test_view_shows_what_lies_beyond_the_rim():
    assert view_beyond(None, (512, 640)) == (0, 0, 640, 512)
    assert view_beyond((300, 200, 340, 300), (512, 640)) == (190, 120, 260, 260)
    x, _, w, _ = view_beyond((600, 200, 660, 300), (512, 640))
    assert x + w == 660
    x, _, _, _ = view_beyond((-30, 200, 40, 300), (512, 640))
    assert x == -30


def test_findings_of_any_kind_are_found_in_the_labels_again(tmp_path):
    rows = [*ROWS, ("./a.png", 1, 1, 9, 9, "person"), ("c.png", "x", 1, 9, 9, "person")]
    table = read(tmp_path, rows)
    places = Places(table)
    audit = audit_table(table)
    assert audit.findings
    for finding in audit.findings:
        image = places.image_of(finding)
        if finding.rule == "malformed_row" and finding.image not in table.image_names:
            assert image is None
            continue
        assert table.image_names[image] == finding.image
        box = places.box_of(finding)
        if box is not None:
            assert table.boxes_xyxy[box].tolist() == list(finding.box)


def test_distributions_count_every_sound_box_once(tmp_path):
    table = read(tmp_path, ROWS)
    heights, widths, ratios, images = size_charts(table)
    for chart in (heights, widths, ratios):
        totals = {line.name: sum(y for _, y in line.points) for line in chart.lines}
        assert totals == {"person": 2, "face": 2}
    (line,) = images.lines
    assert dict(line.points[1:-1]) == {0.0: 0, 1.0: 0, 2.0: 1, 3.0: 1}
    assert line.note == "median 2.5, most 3"
    (bars,) = count_bars(table)
    assert dict(bars.rows) == {"person": 3, "face": 2}


def test_centres_are_counted_where_they_lie(looked_through):
    audit, _ = looked_through
    grid = centre_grid(audit.table)
    counts = np.array(grid.counts)
    assert counts.shape == (24, 32)
    # (15, 25), (65, 30) beyond the rim, and (15, 25) twice of 64 x 48 px.
    assert counts.sum() == counts[12, 7] == 3
    assert "1 with their centre beyond" in grid.note


def test_more_classes_than_lines_share_one(tmp_path):
    rows = [
        ("a.png", 1, 1, 9, 9, f"class{number}") for number in range(40) for _ in range(40 - number)
    ]
    table = read(tmp_path, rows)
    names = [line.name for line in size_charts(table)[0].lines]
    assert names == [*(f"class{number}" for number in range(5)), "35 other classes"]
    (bars,) = count_bars(table)
    assert len(bars.rows) == 30
    assert sum(count for _, count in bars.rows) == table.num_boxes


@pytest.mark.parametrize("rows", [[("a.png", "", "", "", "", "")], [ROWS[0]]])
def test_hardly_anything_is_a_page_too(tmp_path, rows):
    audit = audit_table(read(tmp_path, rows))
    assert "List of findings" in render_audit(gather(audit, max_pictures=5, quiet=True))


def test_page_is_whole_or_not_there_and_its_folder_is_made(looked_through, tmp_path):
    path = write_audit_page(looked_through[0], tmp_path / "new/out", quiet=True)
    assert path == tmp_path / "new/out/index.html"
    assert path.read_text(encoding="utf-8").endswith("</html>")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*index\.html"):
        write_audit_page(looked_through[0], tmp_path / "file", quiet=True)


def test_half_a_character_in_a_name_does_not_stop_the_page(tmp_path):
    path = tmp_path / "labels.json"
    image = {"id": 0, "file_name": "\ud800.png", "height": 9, "width": 9}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "\udfff"}]}
    path.write_text(json.dumps(content))
    page = write_audit_page(audit_table(read_label_table(path)), tmp_path, quiet=True)
    assert "\\ud800.png" in page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_chromium() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


def brightness(page):
    color = page.run("getComputedStyle(document.body).backgroundColor")
    return sum(int(number) for number in re.findall(r"\d+", color)[:3])


def test_page_in_a_browser_is_quiet_fits_and_enlarges(tmp_path, browser):
    rows = [(*row[:-1], HOSTILE) for row in ROWS]
    audit, paths = look_through(tmp_path, rows)
    path = write_audit_page(audit, tmp_path, paths, quiet=True)
    for scheme, least, most in (("light", 600, 765), ("dark", 0, 150)):
        browser.use_scheme(scheme)
        browser.use_width(400)
        browser.open(path)
        assert least <= brightness(browser) <= most
        assert browser.run("document.documentElement.scrollWidth") <= 400
        assert browser.run("document.title") == "labels.csv · d2pd audit"
        assert HOSTILE in browser.run("document.querySelector('.list').textContent")
    browser.use_width(1280)
    widths = browser.run(
        "[...document.images].map((image) => image.complete && image.naturalWidth)"
    )
    assert len(widths) == 4
    assert min(widths) > 0
    browser.run("document.querySelector('#rule-duplicate_box + p ~ ul .open').click()")
    viewer = "document.getElementById('viewer')"
    assert browser.run(f"{viewer}.open")
    assert browser.run(f"{viewer}.querySelector('.viewer-count').textContent") == "1 of 1"
    assert browser.run(f"{viewer}.querySelector('svg').getAttribute('viewBox')") == "0 0 64 48"
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
