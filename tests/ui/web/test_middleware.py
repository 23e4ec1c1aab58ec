"""ui/web/middleware.py and server.py: cross-site requests are refused, bodies are limited, features are disabled."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder

from errors import GraftError
from settings import HOME_RECORD, LOOPBACK, Settings
from store import quota
from tests.helpers.ui_site import Site, make, serve
from ui import shell
from ui.html.theme import STYLE
from ui.web import middleware, server
from ui.web.access import MOST_KEYS, RateLimiter

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
FOREIGN = [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example", "Content-Type": "text/plain"},
]  # fmt: skip
METHODS = ("POST", "PUT", "PATCH", "DELETE")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site"), upload_bytes=10**6) as found:
        yield found


def paths(site: Site) -> list[str]:
    """Return every path of the server, with its parameters filled."""
    return sorted({re.sub(r"\{[^}]*\}", "x", path) for path in site.demo.app.openapi()["paths"]} | {"/gradio_api/none"})


def test_r03_no_route_accepts_a_cross_site_request(site: Site) -> None:
    found = paths(site)
    assert len(found) > 30 and "/gradio_api/upload" in found
    before = len(site.demo.fns), set(Path(get_upload_folder()).rglob("*"))
    with httpx.Client(base_url=site.url) as client:
        for path in found:
            for headers in FOREIGN:
                assert client.post(path, headers=headers, content=b"x").status_code == 403, (path, headers)
            for method in METHODS:
                assert client.request(method, path, headers=FOREIGN[0]).status_code == 403, (path, method)
            for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860"):
                sent = {"Host": host, "Origin": f"http://{host}"}
                assert client.get(path, headers=sent).status_code == 400, (path, host)
                assert client.post(path, headers=sent).status_code == 400, (path, host)
    assert before == (len(site.demo.fns), set(Path(get_upload_folder()).rglob("*")))


def test_r03_a_page_may_call_its_own_site_under_each_name_and_no_other_may_frame_it(site: Site) -> None:
    port, body = site.url.rpartition(":")[2], {"data": ["x", 1, "live"]}
    for host in ("127.0.0.1", "localhost"):
        own = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}", "Sec-Fetch-Site": "same-origin"}
        assert httpx.post(f"{site.url}/gradio_api/call/echo", json=body, headers=own).status_code == 200
    headers = httpx.get(site.url).headers
    assert headers["x-frame-options"] == "SAMEORIGIN" and headers["x-content-type-options"] == "nosniff"


def test_r03_a_space_accepts_its_own_name_alone() -> None:
    (guard, _) = middleware.middleware(Settings(space=True, space_hosts=("ada-graft.hf.space",)))
    same = middleware.SameOrigin(None, **guard.kwargs)
    for origin, foreign in (("https://ada-graft.hf.space", False), ("https://eve.hf.space", True), ("null", True)):
        assert same._foreign(middleware.Headers({"host": "10.0.0.1:7860", "origin": origin})) is foreign


def upload(site: Site, size: int, **headers: str) -> httpx.Response:
    return httpx.post(f"{site.url}/gradio_api/upload", files={"files": ("a.csv", b"x" * size)}, headers=headers)


def test_r27_an_upload_is_limited_and_leaves_no_file_where_it_is_refused(site: Site) -> None:
    assert upload(site, 1000).status_code == 200
    before = set(Path(get_upload_folder()).rglob("*"))
    assert upload(site, 1_100_000).status_code == 413
    many = [("files", (f"{i}.csv", bytes([65 + i]) * 500_000)) for i in range(9)]
    assert httpx.post(f"{site.url}/gradio_api/upload", files=many).status_code == 413
    assert set(Path(get_upload_folder()).rglob("*")) == before


def form(files: int, pieces: int) -> Iterator[bytes]:
    """Yield a form of files in pieces of 100 kB, without a Content-Length."""
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="{}.csv"\r\n\r\n'
    for number in range(files):
        yield part.format(number).encode()
        for _ in range(pieces):
            yield bytes([65 + number]) * 100_000
        yield b"\r\n"
    yield b"--b--\r\n"


@pytest.mark.parametrize("shape", [(1, 200), (9, 5)], ids=["one large file", "many small files"])
def test_r27_a_body_of_unknown_length_is_counted(site: Site, shape: tuple[int, int]) -> None:
    before = set(Path(get_upload_folder()).rglob("*.csv"))
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    with suppress(httpx.HTTPError):  # the connection may end before the answer
        assert httpx.post(f"{site.url}/gradio_api/upload", content=form(*shape), headers=kind).status_code == 413
    assert set(Path(get_upload_folder()).rglob("*.csv")) == before


def test_r27_a_call_is_as_long_as_its_texts_may_be(site: Site, tmp_path: Path) -> None:
    body = {"data": ["x" * (middleware.LARGEST_CALL + 1), 1, "live"]}
    assert httpx.post(f"{site.url}/gradio_api/call/echo", json=body).status_code == 413
    with serve(tmp_path, text_length=3_000_000) as found:
        body = {"data": ["\x01" * 2_900_000, 1, "live"]}  # 17.4 MB of JSON
        assert httpx.post(f"{found.url}/gradio_api/call/echo", json=body).status_code == 200


def test_r27_uploads_have_a_rate_limit_and_a_quota(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(middleware, "UPLOADS_A_MINUTE", 3)
    with serve(tmp_path, disk_bytes=10**6) as found:
        assert [upload(found, 10).status_code for _ in range(4)] == [200, 200, 200, 429]
    found.context.settings.home.mkdir(exist_ok=True)
    (found.context.settings.home / "large").write_bytes(b"x" * 10**6)
    quota._sizes.clear()
    with serve(tmp_path, disk_bytes=10**6) as found:
        answer = upload(found, 10)
        assert answer.status_code == 507 and "GRAFT_DISK_GB" in answer.text


def test_r27_a_rate_limiter_refills_and_forgets_the_oldest() -> None:
    clock = [0.0]
    rate = RateLimiter(60, 2, lambda: clock[0])
    assert [rate.take("a"), rate.take("a"), rate.take("a"), rate.take("b")] == [0, 0, 1, 0]
    clock[0] = 1.0
    assert [rate.take("a"), rate.take("a")] == [0, 1]
    for number in range(MOST_KEYS):
        rate.take(str(number))
    assert len(rate._buckets) == MOST_KEYS and rate.take("a") == 0


def test_r20_a_full_disk_is_an_error_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.check_home(Settings(home=tmp_path / "home"))
    monkeypatch.setattr(server, "LEAST_DISK", 2**62)
    with pytest.raises(GraftError, match="The disk is full"):
        server.check_home(Settings(home=tmp_path / "home"))
    assert [path.name for path in (tmp_path / "home").iterdir()] == [HOME_RECORD]


def test_r34_r40_r44_r46_features_of_gradio_are_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, _, _ = make(tmp_path)
    options = server.options(context)
    closed = {
        "share": False, "show_error": False, "enable_monitoring": False, "run_history": False, "strict_cors": True,
        "ssr_mode": False, "pwa": False, "mcp_server": False,
    }  # fmt: skip
    assert closed.items() <= options.items() and "allowed_paths" not in options
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    assert shell.build(context).analytics_enabled is False
    assert options["max_file_size"] == Settings().upload_bytes and options["server_name"] in LOOPBACK
    assert {"docs_url", "redoc_url", "openapi_url", "middleware", "routes"} == set(options["app_kwargs"])
    blocked = {Path(path) for path in options["blocked_paths"]}
    assert {context.settings.home / name for name in ("adapters", "runs", "corrections", "graft.db")} <= blocked


def test_r44_the_page_names_no_file_of_another_site(site: Site) -> None:
    page, style = httpx.get(site.url).text, httpx.get(f"{site.url}/theme.css").text + STYLE.read_text("utf-8")
    named = [
        *httpx.get(f"{site.url}/config").json()["stylesheets"],
        *re.findall(r"<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=[\"']([^\"']+)", page),
        *re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]+)", style),
    ]
    assert len(named) > 2, "a script and a style of Gradio's at least"
    assert [name for name in named if name.startswith(("http", "//")) and not name.startswith(site.url)] == []


def test_r34_there_is_no_mcp_endpoint(site: Site) -> None:
    for path in ("/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/mcp/schema"):
        assert httpx.get(site.url + path).status_code in (404, 405), path
        assert httpx.post(site.url + path, json={}).status_code in (404, 405), path
