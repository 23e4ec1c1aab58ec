"""ui/web/access.py: each endpoint answers only the users that `MATRIX` permits, and errors are sentences."""

import json
import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest

from errors import GraftError
from settings import Settings
from tests.helpers.endpoints import by_call, by_queue, by_run, endpoints
from tests.helpers.ui_site import CHAT, PASSWORD, Site, make, serve
from ui import shell
from ui.train import hub_form
from ui.web import access
from ui.web.access import COOKIE, SESSION_S, Access, AccessError, Action, Redacting, User, explained, guarded

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
REFUSED = re.compile(r"not for visitors")
CANARY = "hf_" + "canary" * 6
LOOK, ASK, TRAIN, KEEP, CORRECT = Action
MATRIX = {
    "adapters_page.Section._ask": {KEEP},
    "adapters_page.Section._choose": {LOOK},
    "adapters_page.Section._connect_downloads.<lambda>": {LOOK},
    "adapters_page.Section._merged": {KEEP},
    "adapters_page.Section._pack": {KEEP},
    "adapters_page.Section._show_card": {LOOK},
    "adapters_page.Section._place_question.<lambda>": {LOOK},
    "adapters_page.Section.handler.handle": {KEEP},
    "answer.handler_of.once": {ASK},
    "answer.handler_of.stream": {ASK},
    "card_rows.CardRows._file.write": {TRAIN, KEEP},
    "card_rows.CardRows._show": {TRAIN, KEEP},
    "chat.retry": {LOOK},
    "compare.compare.stream": {ASK},
    "continue_from.connect.fill": {TRAIN},
    "correct._hidden": {LOOK},
    "correct.Correct._edit": {CORRECT},
    "correct.Correct._keep": {CORRECT},
    "correct.Correct._open": {CORRECT},
    "correct.Correct._pack": {CORRECT},
    "correct.Correct._remove": {CORRECT},
    "correct.Correct._start": {CORRECT},
    "correct.Correct._take_back": {CORRECT},
    "data_form.RowsForm.show": {TRAIN},
    "data_form.RowsReport._bad_rows": {TRAIN},
    "data_form.RowsReport._report_again": {TRAIN},
    "data_form.RowsReport.guess": {TRAIN},
    "data_form.RowsReport.look": {TRAIN},
    "hub_form.HubForm._choose": {TRAIN},
    "hub_form.HubForm._download": {TRAIN},
    "hub_form.HubForm._end": {TRAIN},
    "hub_form.HubForm._look_up": {TRAIN},
    "pulse.LiveView.handler.refresh": {KEEP, CORRECT},
    "pulse.PagePoll._poll": {LOOK},
    "run_panel.RunPanel._act.<lambda>": {TRAIN},
    "run_panel.RunPanel._choose": {TRAIN},
    "run_panel.RunPanel._connect.<lambda>": {TRAIN},
    "run_panel.RunPanel._copy_log": {TRAIN},
    "run_panel.RunPanel._refresh": {TRAIN},
    "task_tab._examples.fill": {LOOK},
    "train_page.TrainPage._begin.begin": {TRAIN},
    "train_page.TrainPage._preset": {TRAIN},
    "train_page.TrainPage._reset": {TRAIN},
    "train_page.TrainPage._show_estimate": {TRAIN},
    "train_page.TrainPage._suggest_bases": {TRAIN},
    "train_page.TrainPage._use": {TRAIN},
    "train_page.TrainPage._write_command": {TRAIN},
    "transfer.ImportForm._show_labels": {KEEP},
    "transfer.ImportForm.take_in": {KEEP},
}
"""Each handler of the page, and the actions that its events require."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site"), plugins={"chat": CHAT}, password=PASSWORD) as found:
        found.publish("mine")
        yield found


def sign_in(url: str, password: str = PASSWORD) -> httpx.Response:
    return httpx.post(f"{url}/signin", data={"password": password})


@pytest.fixture(scope="module")
def callers(site: Site) -> Iterator[dict[str, httpx.Client]]:
    """Clients without a cookie, with a forged one, and with the owner's."""
    own = sign_in(site.url).cookies[COOKIE]
    forged = own[:-1] + ("A" if own[-1] != "A" else "B")
    cookies = {"anonymous": None, "visitor": {COOKIE: forged}, "owner": {COOKIE: own}}
    found = {name: httpx.Client(base_url=site.url, cookies=cookie, timeout=30) for name, cookie in cookies.items()}
    yield found
    for client in found.values():
        client.close()


def test_r08_every_endpoint_of_the_page_is_in_the_matrix(site: Site) -> None:
    found = endpoints(site.demo)
    actions: dict[str, set[Action]] = {}
    for name, function in found.values():
        actions.setdefault(name, set()).add(function.fn.action)
    assert actions == MATRIX
    assert len(found) > 80 and set().union(*MATRIX.values()) == set(Action)


NOTHING = {"__type__": "update"}


def changes(answer: str) -> bool:
    """Return whether an answer has a value that changes the page."""
    try:
        found = json.loads(answer.rpartition("data: ")[2])
    except ValueError:
        return True
    data = found if isinstance(found, list) else found.get("data") or (found.get("output") or {}).get("data") or []
    return any(value not in (None, NOTHING, {**NOTHING, "props": NOTHING}) for value in data)


@pytest.mark.parametrize("way", [by_run, by_queue, by_call], ids=lambda way: way.__name__)
@pytest.mark.parametrize("who", ["anonymous", "visitor", "owner"])
def test_r08_r09_every_endpoint_answers_only_the_callers_that_the_matrix_permits(
    site: Site, callers: dict[str, httpx.Client], way, who: str
) -> None:
    wrong, called = [], 0
    for number, (name, function) in endpoints(site.demo).items():
        if (way is by_run and function.queue) or (way is by_call and who != "anonymous"):
            continue
        answer, action = way(callers[who], number, function), function.fn.action
        called += 1
        refused = bool(REFUSED.search(answer)) or (action not in (LOOK, ASK) and who != "owner" and not changes(answer))
        if refused != (who != "owner" and action in (TRAIN, KEEP, CORRECT)):
            wrong.append((name, action, answer[:200]))
    assert wrong == [] and (called > 30 or (way is by_call and who != "anonymous"))


def test_r09_a_page_without_owner_has_only_handlers_for_visitors(tmp_path) -> None:
    for name, settings in (("bound", {"host": "192.0.2.1"}), ("space", {"space": True})):
        context, _, _ = make(tmp_path / name, **settings)
        actions = {function.fn.action for _, function in endpoints(shell.build(context)).values()}
        assert actions == {LOOK, ASK}
        with pytest.raises(AccessError):
            context.access.check(context.access.user(None), TRAIN)


def test_r08_a_refusal_tells_the_visitor_to_sign_in() -> None:
    found = Access(Settings(password=PASSWORD))
    for action in (TRAIN, KEEP, CORRECT):
        with pytest.raises(AccessError, match=r"not for visitors.*Sign in as the owner"):
            found.check(User("visitor", False), action)
    for user, action in [(User("owner", True), action) for action in Action] + [(User("visitor", False), LOOK)]:
        found.check(user, action)


def request_of(cookie: str = "", session: object = None, **headers: str) -> SimpleNamespace:
    sent = {"cookie": f"{COOKIE}={cookie}"} if cookie else {}
    scope, client = {"session": session} if session else {}, SimpleNamespace(host="192.0.2.9")
    return SimpleNamespace(headers={**sent, **headers}, request=SimpleNamespace(scope=scope), client=client)


def test_r39_a_session_ends_and_cannot_be_forged_and_too_many_end_the_oldest() -> None:
    clock = SimpleNamespace(now=1000.0)
    found = Access(Settings(password=PASSWORD), lambda: clock.now)
    assert found.sign_in("wrong") is found.sign_in("") is None
    token = found.sign_in(PASSWORD)
    assert found.user(request_of(token)).owner
    for forged in ("", "x", token[:-1], token + "x", PASSWORD, next(iter(found._sessions))):
        assert not found.user(request_of(forged)).owner
    clock.now += SESSION_S
    assert not found.user(request_of(token)).owner
    token = found.sign_in(PASSWORD)
    found.sign_out(token)
    assert not found.user(request_of(token)).owner
    assert not Access(Settings(password=PASSWORD)).user(request_of(token)).owner
    assert Access(Settings(host="0.0.0.0")).sign_in("") is None
    first, *_, last = [found.sign_in(PASSWORD) for _ in range(access.MOST_SESSIONS + 1)]
    assert found.user(request_of(last)).owner and not found.user(request_of(first)).owner
    assert len(found._sessions) == access.MOST_SESSIONS


def oauth(name: str, expires_at: float = 9e12) -> dict[str, object]:
    return {"oauth_info": {"userinfo": {"preferred_username": name}, "expires_at": expires_at, "access_token": "t"}}


def test_r07_only_the_accounts_of_owners_count_and_only_on_a_space(monkeypatch) -> None:
    assert Access(Settings(space=True, oauth=True, owners=("ada",))).mode == "nobody", "without what signs people in"
    monkeypatch.setattr(access, "find_spec", lambda name: name)
    space = Settings(space=True, oauth=True, owners=("ada",))
    found = [Access(space).user(request_of(session=s)) for s in (oauth("ada"), oauth("eve"), oauth("ada", 1), None, {})]
    assert [(u.name, u.owner) for u in found] == [("ada", True), ("eve", False), *[("visitor", False)] * 3]
    assert not Access(Settings(password=PASSWORD, owners=("ada",))).user(request_of(session=oauth("ada"))).owner


def test_r07_the_operators_token_is_lent_to_nobody(tmp_path) -> None:
    space = {"space": True, "oauth": True, "owners": ("ada",)}
    for number, settings in enumerate(({"password": PASSWORD}, {"host": "0.0.0.0"}, space)):
        context, _, _ = make(tmp_path / str(number), **settings)
        assert hub_form.hub(context)._rows._token is False, "no token"
    assert hub_form.hub(make(tmp_path / "local")[0])._rows._token is None, "the token of the machine"


def test_r26_a_visitor_has_a_rate_limit_and_the_owner_none() -> None:
    found = Access(Settings(password=PASSWORD, rate=3))
    answer = guarded(found, ASK, lambda text: text)
    owner = request_of(found.sign_in(PASSWORD))
    assert [answer(request_of(), "a") for _ in range(3)] == ["a"] * 3
    with pytest.raises(gr.Error, match="One visitor may ask 3 times a minute"):
        answer(request_of(), "a")
    assert [answer(owner, "a") for _ in range(9)] == ["a"] * 9


def test_r26_behind_the_proxy_of_a_space_a_visitor_has_the_address_that_the_proxy_added() -> None:
    forged = request_of(**{"x-forwarded-for": "1.1.1.1, 2.2.2.2"})
    assert Access(Settings(space=True)).user(forged).key == "2.2.2.2"
    assert Access(Settings(host="0.0.0.0")).user(forged).key == "192.0.2.9"


def test_r39_wrong_passwords_are_limited_and_the_right_one_sets_a_cookie_for_this_page_alone(tmp_path) -> None:
    with serve(tmp_path, password=PASSWORD) as found:
        url = found.url
        assert "password" in httpx.get(f"{url}/signin").text
        assert [sign_in(url, guess).status_code for guess in ("", "x", "é" * 2000)] == [403] * 3
        longer = {"more": "y" * 9000, "password": PASSWORD}
        assert httpx.post(f"{url}/signin", data=longer).status_code == 403, "no more of a form is read"
        right = sign_in(url)
        assert right.status_code == 303 and right.headers["location"] == "./"
        (cookie,) = right.headers.get_list("set-cookie")
        assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; ")) and "Secure" not in cookie
        secure = httpx.post(f"{url}/signin", data={"password": PASSWORD}, headers={"x-forwarded-proto": "https"})
        assert "Secure" in secure.headers["set-cookie"]
        led = httpx.post(f"{url}/signin?_target_url=////evil.example", data={"password": PASSWORD})
        assert led.headers["location"] == "./"
        session = {COOKIE: right.cookies[COOKIE]}
        assert "Sign out" in httpx.get(f"{url}/signin", cookies=session).text
        evil = {"Origin": "http://evil.example"}
        assert httpx.post(f"{url}/signout", cookies=session, headers=evil).status_code == 403
        assert httpx.post(f"{url}/signout", cookies=session).status_code == 303
        assert "Sign out" not in httpx.get(f"{url}/signin", cookies=session).text
        assert [sign_in(url, "wrong").status_code for _ in range(6)] == [403] * 5 + [429]
        assert sign_in(url).status_code == 429, "and then the right one waits too"
        for path in ("/config", "/gradio_api/info", "/"):
            assert PASSWORD not in httpx.get(url + path).text


def test_r06_messages_and_the_log_have_no_token(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as caught, explained():
        raise GraftError("The Hub refuses.", f"Authorization: Bearer {CANARY}.", f"See https://x:{CANARY}@hub.")
    assert CANARY not in str(caught.value) and "hf_..." in str(caught.value) and "The Hub refuses." in str(caught.value)
    with pytest.raises(gr.Error) as caught, explained():
        raise ValueError(f"GET /api?token={CANARY}")
    assert CANARY not in str(caught.value)
    (record,) = caplog.records
    written = Redacting("%(message)s").format(record)
    assert "Traceback" in written and "hf_..." in written and CANARY not in written
    assert CANARY in logging.Formatter("%(message)s").format(logging.makeLogRecord(vars(record) | {"exc_text": None}))


@pytest.mark.parametrize("ends", [SystemExit, SystemExit(1), KeyError("x")])
def test_r26_a_plugin_that_calls_exit_ends_its_request_and_not_the_server(ends: BaseException) -> None:
    def handler() -> None:
        raise ends

    with pytest.raises(gr.Error, match="Something went wrong in Graft itself"):
        guarded(Access(Settings()), ASK, handler)(request_of())
