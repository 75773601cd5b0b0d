import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser

import pytest
from report_toys import HOSTILE, made_up_content

from d2pd.reporting.report.content import Content, DatasetPart
from d2pd.reporting.report.page import TEMPLATES, render_page


class Reader(HTMLParser):
    """Collects tags, and what stands in scripts and elsewhere."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.scripts, self.words, self.inside = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        (self.scripts if self.inside == "script" else self.words).append(data)


@pytest.fixture(scope="module")
def page():
    return Reader(render_page(made_up_content()))


def test_texts_of_files_stay_texts(page):
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script", "script"]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert not [attrs for tag, attrs in page.tags if tag == "img" and attrs["src"] == "x"]
    assert sum(HOSTILE in words for words in page.words) > 20


def test_embedded_json_is_whole_and_cannot_end_its_script(page):
    data, _ = page.scripts

    assert HOSTILE in json.loads(data)
    assert not re.search(r"[<>&]", data)
    for _, attrs in page.tags:
        if "data-lines" in attrs:
            assert json.loads(attrs["data-lines"])[0]["name"] == HOSTILE


def test_policy_allows_the_style_and_the_script_of_the_page_and_no_network(page):
    [policy] = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, name in (("style-src", "page.css"), ("script-src", "page.js")):
        digest = hashlib.sha256((TEMPLATES / name).read_bytes()).digest()
        assert rules[rule] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_nothing_is_linked_but_places_of_the_page(page):
    links = [a.get("href") or a.get("src") for _, a in page.tags if "href" in a or "src" in a]

    assert links
    assert not [link for link in links if not link.startswith(("#", "data:"))]
    assert "url(" not in (TEMPLATES / "page.css").read_text()
    assert not re.search(
        r"\beval\b|innerHTML|fetch\(|http[^:]*://(?!www\.w3\.org)", page.scripts[1]
    )


def test_every_link_has_its_place_and_every_picture_its_words(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    places = [a["href"][1:] for tag, a in page.tags if tag == "a"]

    assert len(set(ids)) == len(ids)
    assert set(places) <= set(ids)
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_picture_that_is_not_there_leaves_a_place_and_the_reason(page):
    assert sum(words.strip() == "no picture" for words in page.words) == 1
    assert len([1 for tag, a in page.tags if tag == "img"]) == 5


def test_page_of_nothing_says_so():
    part = DatasetPart("val", "No detections.", absent=["why"], gallery_note="nothing drawn")
    content = Content("run", "/run", training_absent="never trained", datasets=[part])

    text = html.unescape(render_page(content))

    for words in ("never trained", "why", "nothing drawn"):
        assert words in text
