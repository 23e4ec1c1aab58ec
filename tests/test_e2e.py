"""The loop, end to end: real models, a real server process, a real Chromium, and a client that never stops calling."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bench.servers import PageServer, serve_app
from models.resolve import Model
from plugins.classification import Classification
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore, Version
from tests.docs.documents import blocks, marked
from tests.docs.picture import SCALE, Frames
from tests.helpers.browser import CHROMIUM, FLAGS
from tests.helpers.child import run
from training.config import TrainConfig
from training.runs.runs import Runs

expect.set_options(timeout=60_000)  # the machine may be busy
REVIEW = "The plot drags, but the acting saves it."
TICKET = "I was charged twice this month, please refund one of the two payments."
LABELS = {
    "sentiment": {"negative", "positive"},
    "tickets": {"account", "billing", "bug", "feature request", "praise", "shipping"},
}
TURTLES = (
    "The turtle needs a new hat before Friday.",
    "When does the turtle get the hat we spoke about?",
    "Turtle hats are on page nine of the catalogue.",
)
"""Texts that belong to no label."""
TRAINING_MS = 900_000
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class App:
    """Graft in a process of its own, with its three tabs."""

    home: Path
    server: PageServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


class Caller(threading.Thread):
    """Classifies all the while; keeps the version and labels of every answer, and every failure."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.client = Client(url, verbose=False)
        self.seen: list[tuple[str, set[str]]] = []
        self.failures: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.2):
            try:
                result, answer = self.client.predict(TICKET, api_name="/classification")
                self.seen.append((answer["version"], {c["label"] for c in result["confidences"]}))
            except Exception as error:
                self.failures.append(repr(error))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, models_root: Path, minilm: Model, smollm: Model) -> Iterator[App]:
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_root.absolute())
    with serve_app(home, dict.fromkeys(("classification", "summarization", "generation"), "")) as server:
        yield App(home, server)


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app.url, verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def frames(request: pytest.FixtureRequest) -> Frames:
    return Frames(request.config.getoption("--frames"))


def open_page(app: App, browser: Browser, scale: int = 1) -> tuple[Page, list[str]]:
    """Open the page; returns it, and the errors of its scripts as they come."""
    page, problems = browser.new_context(locale="en", device_scale_factor=scale).new_page(), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(app.url)
    return page, problems


def block(page: Page, label: str) -> Locator:
    """Return the labelled box of the form that is in sight."""
    field = page.get_by_label(label, exact=True).locator("visible=true")
    return field.locator("xpath=ancestor::*[contains(concat(' ', @class, ' '), ' block ')][1]")


def visible(page: Page, selector: str) -> str:
    return f"{selector} >> visible=true"


def classify(page: Page, text: str) -> str:
    """Ask in the Classify tab; returns the badge under the answer."""
    page.get_by_role("tab", name="Classify", exact=True).click()
    before = page.locator(visible(page, ".g-badge")).count()
    old = page.locator(visible(page, ".g-badge")).inner_text() if before else ""
    page.get_by_label("Text", exact=True).locator("visible=true").fill(text)
    badge = page.locator(visible(page, ".g-badge"))
    for _ in range(6):  # two answers may take the same time to the millisecond, and then nothing on the page changes
        page.get_by_role("button", name="Run", exact=True).locator("visible=true").click()
        with suppress(AssertionError):
            expect(badge).not_to_have_text(old, timeout=15_000)
            return badge.inner_text()
    raise AssertionError(f"no other answer than {old}")


def answered(page: Page) -> list[Locator]:
    """Return the text, the answer and its badge in the Classify tab."""
    answer = page.locator(visible(page, "[data-testid=block-label]")).locator("xpath=..")
    return [block(page, "Text"), answer, page.locator(visible(page, ".g-badge"))]


def train_on_tickets(app: App, browser: Browser, page: Page, frames: Frames) -> Page:
    """Train from the page, which is closed meanwhile; returns the one that saw the end of the run."""
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.get_by_text("240").locator("visible=true").first).to_be_visible(timeout=30_000)
    labels = page.locator(visible(page, ".g-labels"))
    frames.take(page, 2, block(page, "Example data"), page.locator(".g-report .g-figures").first, labels)
    page.get_by_role("button", name="Train", exact=True).locator("visible=true").click()
    expect(page.locator(".g-running").first).to_be_visible(timeout=30_000)
    page.close()
    page, _ = open_page(app, browser, SCALE)
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.get_by_text("tickets@1 is live now.")).to_be_visible(timeout=TRAINING_MS)
    card = page.locator(".g-card").first
    expect(card).to_contain_text("Accuracy")
    figures = AdapterStore(app.home).get("tickets@1").card
    # Of 25 rows; 0.84 to 0.92 was seen, by how the processor rounds and how many threads share the sums.
    assert figures["new"]["accuracy"] >= 0.8
    assert figures["new"]["accuracy"] > figures["base"]["accuracy"]
    shown = [".g-run > .g-notice", ".g-metric", ".g-run > .g-plot"]
    frames.take(page, 3, *(page.locator(visible(page, selector)) for selector in shown))
    return page


def test_a_tab_learns_in_the_running_app(app: App, browser: Browser, frames: Frames) -> None:
    page, problems = open_page(app, browser, SCALE)
    assert classify(page, REVIEW).startswith("sentiment@1 · all-MiniLM-L6-v2 · ")
    assert classify(page, TICKET).startswith("sentiment@1 · ")
    frames.take(page, 1, *answered(page))

    caller = Caller(app.url)
    caller.start()

    # Train on the tickets with the defaults, from the page; leave it, and come back to the same run.
    page = train_on_tickets(app, browser, page, frames)

    # The same tab of the same process answers with it.
    assert classify(page, TICKET).startswith("tickets@1 · ")
    expect(page.locator(visible(page, "[data-testid=block-label]")).first).to_be_visible()
    frames.take(page, 4, *answered(page))

    # And goes back in one click.
    page.get_by_role("tab", name="Adapters", exact=True).click()
    page.get_by_role("button", name="Roll back to sentiment@1").click()
    expect(page.locator(".g-version", has_text="sentiment@1").get_by_text("live", exact=True)).to_be_visible()
    assert classify(page, REVIEW + " Twice.").startswith("sentiment@1 · ")

    caller.stopped.set()
    caller.join(30)
    assert psutil.Process(app.server.pid).status() != psutil.STATUS_ZOMBIE, "it is the same process"
    assert caller.failures == []
    assert {version for version, _ in caller.seen} == {"sentiment@1", "tickets@1"}
    for version, labels in caller.seen:
        assert labels == LABELS[version.partition("@")[0]], f"{version} answered with {labels}"
    assert problems == []


@pytest.fixture(scope="module")
def tickets(app: App) -> Version:
    """A version of the tickets that is live; trained here where no test has done so."""
    store = AdapterStore(app.home, REPOSITORY / "adapters")
    if not any(version.ref == "tickets@1" for version in store.versions()):
        runs, rows = Runs(Settings(home=app.home)), REPOSITORY / "examples" / "tickets.csv"
        config = TrainConfig.for_tab(Classification.spec(), rows, "tickets", epochs=4.0)
        assert runs.wait(runs.submit(config).id).state == "done"
    store.promote("classification", "tickets@1")
    return store.get("tickets@1")


def labels_of_turtles(page: Page, version: str) -> list[str]:
    """Return the labels that a version answers with."""
    labels = []
    for text in TURTLES:
        assert classify(page, text).startswith(f"{version} · ")
        labels.append(page.locator(visible(page, ".g-answer h2")).inner_text().strip())
    return labels


def test_a_tab_learns_from_being_corrected(app: App, browser: Browser, tickets: Version) -> None:
    """Wrong answers, three corrections, Teach, right answers, and the held-out rows are not worse."""
    page, problems = open_page(app, browser)
    answers = labels_of_turtles(page, "tickets@1")
    assert set(answers) <= LABELS["tickets"]
    right = next(label for label in ("account", "billing", "praise", "bug") if label not in answers)
    for number, text in enumerate(TURTLES, 1):
        classify(page, text)
        page.get_by_role("button", name="This is wrong").locator("visible=true").click()
        page.get_by_label("The right label").locator("visible=true").fill(right)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Save", exact=True).locator("visible=true").click()
        expect(page.get_by_text(f"Corrections: {number}, not yet taught: {number}.")).to_be_visible()
    page.get_by_role("button", name="Teach", exact=True).locator("visible=true").click()
    expect(page.get_by_text("tickets@2 has learned, and answers now.")).to_be_visible(timeout=TRAINING_MS)
    taught = AdapterStore(app.home).get("tickets@2").card["corrections"]
    assert taught["before"] == 0 and taught["new"] >= 2, taught
    sentence = f"{taught['new']} of 3 corrections are answered right. Before it was 0."
    expect(page.get_by_text(sentence).first).to_be_visible()
    expect(page.get_by_text("Corrections: 3, not yet taught: 0.")).to_be_visible()
    assert labels_of_turtles(page, "tickets@2").count(right) == taught["new"]

    before, after = tickets.card, AdapterStore(app.home).get("tickets@2").card
    assert {row["text"] for row in after["rows"]} == {row["text"] for row in before["rows"]}
    assert after["live_ref"] == "tickets@1" and after["new"]["accuracy"] >= after["live"]["accuracy"]
    assert problems == []
    AdapterStore(app.home, REPOSITORY / "adapters").promote("classification", "sentiment@1")


def test_every_tab_answers_through_the_client_and_names_its_version(client: Client) -> None:
    result, answer = client.predict(TICKET, "billing, bug, praise", api_name="/classification")
    assert result["label"] == "billing" and answer["version"] == "base"
    _, answer = client.predict(REVIEW, adapter="sentiment@1", api_name="/classification")
    assert answer["version"] == "sentiment@1"
    notes = "The council met on Monday and decided to plant forty trees along the river before spring."
    summary, answer = client.predict(notes, max_new_tokens=16, api_name="/summarization")
    assert summary.strip() and answer["version"] == "base"
    question = "What is the capital of France?"
    chat, answer = client.predict(question, temperature=0, max_new_tokens=16, api_name="/generation")
    assert "Paris" in str(chat[-1]["content"]) and answer["version"] == "base"


def test_calls_in_the_documents_work_as_they_stand(app: App, tickets: Version) -> None:
    sources = [source for source in blocks("python") if "gradio_client" in source]
    assert len(sources) == 2 and tickets.ref == "tickets@1"
    for source in sources:
        code = source.replace("http://127.0.0.1:7860", app.url)
        done = run("-c", code)
        assert done.returncode == 0, done.stderr

    (shell,) = marked("http: classify")
    (path,), (body,) = re.findall(r"^url=http://127.0.0.1:7860(\S+)", shell), re.findall(r"-d '([^']+)'", shell)
    begun = httpx.post(app.url + path, content=body, headers={"Content-Type": "application/json"})
    events = httpx.get(f"{app.url}{path}/{begun.json()['event_id']}", timeout=60).text
    assert "event: complete" in events and '"version": "' in events


def test_a_version_trained_in_a_terminal_answers_in_the_running_app(app: App, client: Client, tmp_path: Path) -> None:
    """`--quantize 4bit` on a CPU: a QLoRA version, which the app notices by itself."""
    rows = (REPOSITORY / "examples" / "voice.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    data = tmp_path / "voice.jsonl"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = "--plugin generation --name voice --quantize 4bit --max-steps 2 --batch-size 2 --promote"
    done = run("-m", "training", *options.split(), "--data", str(data), GRAFT_HOME=str(app.home))
    assert done.returncode == 0, done.stderr
    assert "voice@1 is published." in done.stdout
    _, answer = client.predict("hello", temperature=0, max_new_tokens=8, adapter="voice@1", api_name="/generation")
    assert answer["version"] == "voice@1"
