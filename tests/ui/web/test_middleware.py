"""ui/web/middleware.py: what another site's page may send here is nothing, and a body has an end."""

import re
from collections.abc import Iterator
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
from ui.web.rate_limit import MOST_KEYS, Rate

pytestmark = pytest.mark.filterwarnings("ignore")
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
    """Every path that the server answers, its places filled."""
    return sorted({re.sub(r"\{[^}]*\}", "x", path) for path in site.demo.app.openapi()["paths"]} | {"/gradio_api/none"})


def test_r03_no_route_takes_what_another_site_sends(site: Site) -> None:
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


def test_r03_an_own_page_passes_under_each_of_its_names(site: Site) -> None:
    port = site.url.rpartition(":")[2]
    body = {"data": ["x", 1, "live"]}
    for host in ("127.0.0.1", "localhost"):
        own = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}", "Sec-Fetch-Site": "same-origin"}
        assert httpx.post(f"{site.url}/gradio_api/call/echo", json=body, headers=own).status_code == 200


def test_r03_a_space_is_its_own_name_and_no_other(tmp_path: Path) -> None:
    context, _, _ = make(tmp_path, space=True, space_hosts=("ada-graft.hf.space",))
    guard = next(m for m in middleware.middleware(context.settings, context.access) if m.cls is middleware.SameOrigin)
    same = middleware.SameOrigin(None, **guard.kwargs)
    for origin, foreign in (("https://ada-graft.hf.space", False), ("https://eve.hf.space", True), ("null", True)):
        assert same._foreign(middleware.Headers({"host": "10.0.0.1:7860", "origin": origin})) is foreign


def test_r03_no_other_site_shows_this_page_inside_its_own(site: Site) -> None:
    answer = httpx.get(site.url)
    assert answer.headers["x-frame-options"] == "SAMEORIGIN" and answer.headers["x-content-type-options"] == "nosniff"


def upload(site: Site, size: int, **headers: str) -> httpx.Response:
    return httpx.post(f"{site.url}/gradio_api/upload", files={"files": ("a.csv", b"x" * size)}, headers=headers)


def test_r27_an_upload_is_bounded_and_leaves_nothing_where_it_is_refused(site: Site) -> None:
    assert upload(site, 1000).status_code == 200
    before = set(Path(get_upload_folder()).rglob("*"))
    assert upload(site, 1_100_000).status_code == 413
    assert upload(site, 3_000_000).status_code == 413

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n'
        for _ in range(200):
            yield b"x" * 100_000

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        status = httpx.post(f"{site.url}/gradio_api/upload", content=endless(), headers=kind).status_code
    except httpx.HTTPError:
        status = 413
    assert status == 413
    many = [("files", (f"{i}.csv", bytes([65 + i]) * 500_000)) for i in range(9)]
    assert httpx.post(f"{site.url}/gradio_api/upload", files=many).status_code == 413
    assert set(Path(get_upload_folder()).rglob("*")) == before


def test_r27_a_body_that_does_not_say_how_long_it_is_is_counted(site: Site) -> None:
    """Each of its files is small; together they are not."""
    part = 'Content-Disposition: form-data; name="files"; filename="{}.csv"\r\n\r\n'

    def parts() -> Iterator[bytes]:
        for number in range(9):
            yield b"--b\r\n" + part.format(number).encode() + bytes([65 + number]) * 500_000 + b"\r\n"
        yield b"--b--\r\n"

    before = set(Path(get_upload_folder()).rglob("*.csv"))
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        status = httpx.post(f"{site.url}/gradio_api/upload", content=parts(), headers=kind).status_code
    except httpx.HTTPError:
        status = 413
    assert status == 413
    assert set(Path(get_upload_folder()).rglob("*.csv")) == before


def test_r27_a_call_is_no_upload(site: Site) -> None:
    body = {"data": ["x" * (middleware.LARGEST_CALL + 1), 1, "live"]}
    assert httpx.post(f"{site.url}/gradio_api/call/echo", json=body).status_code == 413


def test_a_call_is_as_long_as_the_text_that_the_setting_allows(tmp_path: Path) -> None:
    text = "\x01" * 2_900_000  # 17.4 MB of JSON
    with serve(tmp_path, text_length=3_000_000) as found:
        body = {"data": [text, 1, "live"]}
        assert httpx.post(f"{found.url}/gradio_api/call/echo", json=body).status_code == 200


def test_r27_uploads_are_counted_and_end_where_the_disk_that_may_be_used_does(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(middleware, "UPLOADS_A_MINUTE", 3)
    with serve(tmp_path, disk_bytes=10**6) as found:
        assert [upload(found, 10).status_code for _ in range(4)] == [200, 200, 200, 429]
    found.context.settings.home.mkdir(exist_ok=True)
    (found.context.settings.home / "large").write_bytes(b"x" * 10**6)
    quota._known.clear()
    with serve(tmp_path, disk_bytes=10**6) as found:
        answer = upload(found, 10)
        assert answer.status_code == 507 and "GRAFT_DISK_GB" in answer.text


def test_r27_who_is_forgotten_has_a_full_bucket_again() -> None:
    clock = [0.0]
    rate = Rate(60, 2, lambda: clock[0])
    assert [rate.take("a"), rate.take("a"), rate.take("a"), rate.take("b")] == [0, 0, 1, 0]
    clock[0] = 1.0
    assert [rate.take("a"), rate.take("a")] == [0, 1]
    for number in range(MOST_KEYS):
        rate.take(str(number))
    assert len(rate._buckets) == MOST_KEYS and rate.take("a") == 0


def test_r20_a_disk_without_room_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.check_home(Settings(home=tmp_path / "home"))
    monkeypatch.setattr(server, "LEAST_DISK", 2**62)
    with pytest.raises(GraftError, match="The disk is full"):
        server.check_home(Settings(home=tmp_path / "home"))
    assert [path.name for path in (tmp_path / "home").iterdir()] == [HOME_RECORD]


def test_r34_r40_r44_r46_the_server_is_told_to_keep_closed_what_gradio_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, _ = make(tmp_path)
    told = server.options(context)
    closed = {
        "share": False, "show_error": False, "enable_monitoring": False, "run_history": False, "strict_cors": True,
        "ssr_mode": False, "pwa": False, "mcp_server": False,
    }  # fmt: skip
    assert closed.items() <= told.items() and "allowed_paths" not in told
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    assert shell.build(context).analytics_enabled is False
    assert told["max_file_size"] == Settings().upload_bytes and told["server_name"] in LOOPBACK
    assert {"docs_url", "redoc_url", "openapi_url", "middleware"} == set(told["app_kwargs"])
    blocked = {Path(path) for path in told["blocked_paths"]}
    assert {context.settings.home / name for name in ("adapters", "runs", "corrections", "graft.db")} <= blocked


def test_r44_the_page_names_nothing_of_elsewhere_that_a_browser_would_fetch(site: Site) -> None:
    page, style = httpx.get(site.url).text, httpx.get(f"{site.url}/theme.css").text + STYLE.read_text("utf-8")
    named = [
        *httpx.get(f"{site.url}/config").json()["stylesheets"],
        *re.findall(r"<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=[\"']([^\"']+)", page),
        *re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]+)", style),
    ]
    assert len(named) > 2, "a script and a style of Gradio's at least"
    assert [name for name in named if name.startswith(("http", "//")) and not name.startswith(site.url)] == []


def test_r34_there_is_no_mcp(site: Site) -> None:
    for path in ("/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/mcp/schema"):
        assert httpx.get(site.url + path).status_code in (404, 405), path
        assert httpx.post(site.url + path, json={}).status_code in (404, 405), path
