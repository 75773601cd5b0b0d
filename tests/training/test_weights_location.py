import email.message
import io
import urllib.error
import urllib.request

import pytest

from d2pd.errors import ConfigError, MissingFileError, WeightsError
from d2pd.training.weights.weights_location import cached_path, resolve_weights, weights_url

URL = "https://example.org/models/r50.pkl"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Answer(io.BytesIO):
    def __init__(self, content: bytes, length: int | None):
        super().__init__(content)
        self.headers = email.message.Message()
        if length is not None:
            self.headers["Content-Length"] = str(length)


@pytest.fixture
def web(monkeypatch):
    """Answers every address with ``pages``, and notes what was asked."""
    asked, pages = [], {}

    def answer(url, timeout):
        asked.append(url)
        if isinstance(pages[url], Exception):
            raise pages[url]
        return Answer(*pages[url])

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked, pages


def test_a_path_is_itself(tmp_path, monkeypatch):
    (tmp_path / "w.pth").touch()
    assert resolve_weights(str(tmp_path / "w.pth")) == tmp_path / "w.pth"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_weights("~/w.pth") == tmp_path / "w.pth"


def test_detectron2_addresses_stand_for_its_model_zoo():
    assert weights_url("detectron2://ImageNetPretrained/torchvision/R-50.pkl") == (
        "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/torchvision/R-50.pkl"
    )
    assert weights_url("C:/weights/w.pth") is None


def test_the_place_of_a_fetched_file_is_inside_the_cache(cache):
    assert cached_path(URL + "?matching_heuristics=True") == cache / "models" / "r50.pkl"
    assert cached_path("https://example.org/../../a/../b.pkl") == cache / "a" / "b.pkl"


@pytest.mark.parametrize("length", [5, None])
def test_a_file_is_fetched_once(web, cache, length):
    asked, pages = web
    pages[URL] = (b"bytes", length)
    assert resolve_weights(URL).read_bytes() == b"bytes"
    assert resolve_weights(URL) == cache / "models" / "r50.pkl"
    assert asked == [URL]


def test_a_file_put_there_by_hand_needs_no_network(web, cache):
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "r50.pkl").write_bytes(b"mine")
    assert resolve_weights(URL).read_bytes() == b"mine"
    assert web[0] == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (urllib.error.URLError("Name or service not known"), "Name or service not known"),
        (urllib.error.HTTPError(URL, 404, "Not Found", None, None), "Not Found"),
        (TimeoutError("timed out"), "timed out"),
        ((b"half", 1000), "the connection ended after 4 of 1,000 bytes"),
    ],
)
def test_what_cannot_be_fetched_names_address_reason_and_place(web, cache, page, reason):
    web[1][URL] = page
    with pytest.raises(MissingFileError) as caught:
        resolve_weights(URL)
    for part in (URL, reason, str(cache / "models" / "r50.pkl"), "MODEL.WEIGHTS"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_a_missing_path_names_the_place_and_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match=r"'w\.pth' is not there .*w\.pth.*or '' for none"):
        resolve_weights("w.pth")


def test_a_folder_and_an_unknown_scheme_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        resolve_weights(str(tmp_path))
    for location in ("s3://bucket/w.pth", "http://example.org/w.pth", "", "https://example.org"):
        with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
            resolve_weights(location)
