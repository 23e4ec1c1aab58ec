"""Training beside the stock recipe, PEFT with the Trainer: speed, memory and quality, and the time until an answer.

    python -m bench train --rounds 5                     classification, generation and quantized
    python -m bench train classification --share 0.1     one of them, on a tenth of the rows
    python -m bench live --rounds 5

Both sides are given the same rows, rank, learning rate, batch and epochs, and a seed a round; each run is a process of
its own. In `train` ours are whole runs, of which the training loop is compared; `quantized` compares an NF4 base with a
plain one. In `live` our clock runs from Train, clicked in an app that is up, until the tab's answer names the new
version; the peer's from the start of its script to the first answer of the process started after it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench import measure
from bench.bench_tab import LABELS, MINILM, SMOLLM
from bench.measure import Contender, Figures, Row
from bench.servers import serve_app
from bench.snippets import Snippet, read_snippets, split_snippets, write_snippets
from models.chat_template import encode
from models.resolve import Model, ModelStore
from models.tokenizer import load_tokenizer
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.events import RESULT, read_events
from training.runs.runs import Runs

CHATS = REPOSITORY / "examples" / "voice.jsonl"
SHARED = ("rank", "alpha", "learning_rate", "batch_size", "epochs", "max_steps", "quantize")
HELD_OUT = 0.1
TRIED = 100
"""Rows that both sides answer when the clock of `live` has stopped: a wrong answer is none."""
CLASSIFY = TabSpec("classification", MINILM, "text-classification", Columns(text="text", target="label"))
FILM_REVIEWS = TrainConfig.for_tab(CLASSIFY, Path("rows.csv"), "classification", rank=16, alpha=32.0, quantize="none")
WHOLE: Mapping[str, Any] = {"evaluations": 0, "card_rows": 0}  # no pause on the way, and a card of all held-out rows


@dataclass(frozen=True)
class TrainingCase:
    """Rows and settings for both sides; the peer's rows are (text, label), or mappings of token ids."""

    config: TrainConfig
    train: Sequence[Any]
    held_out: Sequence[Any]
    labels: Sequence[str] = ()

    def figures(self, seconds: float, peak: float, metrics: Mapping[str, float]) -> dict[str, float]:
        """Name the results of a run: rows or tokens a second, peak memory of `peak` bytes, the held-out metric."""
        unit, metric = ("rows", "accuracy") if self.labels else ("tokens", "loss")
        amount = len(self.train) if self.labels else sum(len(row["input_ids"]) for row in self.train)
        speed = self.config.epochs * amount / seconds
        return {f"{unit} a second": speed, "peak GB": peak / 1e9, f"held-out {metric}": metrics[metric]}

    def run_peer(self, act: str, folder: Path, seed: int) -> dict[str, Any]:
        """Run the stock recipe; `act` is that of `bench/peers/stock_training.py`."""
        job = {key: getattr(self.config, key) for key in SHARED}
        job |= {"train": list(self.train), "held_out": list(self.held_out), "labels": list(self.labels), "seed": seed}
        job |= {"base": str(_find(self.config.model).path), "folder": str(folder / "stock")}
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "bench.peers.stock_training", act, str(path)]
        return measure.run_child(command, measure.peer_environment()).result

    def run_graft(self, seed: int) -> Figures:
        """Train in a new home."""
        with tempfile.TemporaryDirectory() as home:
            run, _ = measure.run_training(replace(self.config, seed=seed), Path(home))
            result = json.loads((run / RESULT).read_text(encoding="utf-8"))
            found = AdapterStore(Path(home)).get(result["version"]).manifest["measured"]
        figures = self.figures(found["seconds"], found["peak_memory"], result["card"]["new"])
        return {**figures, "base MB": found["base_memory"] / 1e6}


def train(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Measure each part."""
    options = measure.parse(__doc__, arguments, ["classification", "generation", "quantized"], rounds=5, share=1.0)
    rows: list[Row] = []
    for part in options.parts:
        if part == "quantized":
            # At 2e-3, which a plain MiniLM bears, one of three runs on NF4 stops learning: NF4 moves the outputs of so
            # small a base by a fifth.
            case = _classification(folder, options.share, learning_rate=1e-3)
            small = replace(case, config=replace(case.config, quantize="4bit"))
            rows += _compare({"a plain base": case.run_graft, "an NF4 base": small.run_graft}, options.rounds)
        else:
            make = _classification if part == "classification" else _generation
            rows += against_stock(make(folder, options.share), folder, options.rounds)
    return rows


def against_stock(case: TrainingCase, folder: Path, rounds: int) -> list[Row]:
    """Compare Graft with the Trainer."""

    def stock(seed: int) -> Figures:
        found = case.run_peer("train", folder, seed)
        return case.figures(found["seconds"], found["peak"], found)

    return _compare({f"{case.config.name}: stock": stock, f"{case.config.name}: graft": case.run_graft}, rounds)


def _compare(contenders: Mapping[str, Contender], rounds: int) -> list[Row]:
    """Alternate; medians, and of the held-out metric the mean over the seeds with the least and the most."""
    first, second = contenders
    measured = measure.alternate(contenders, rounds)
    speed, memory, metric, *_ = measured[first][0]
    rows = measure.summarize(measured, {second: first}, [speed, memory])
    for row in rows:
        values = [figures[metric] for figures in measured[row["what"]]]
        row[metric] = f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
    return rows


def _find(model: str) -> Model:
    settings = Settings.from_env()
    return ModelStore(settings.home.absolute() / "models", settings.offline).resolve(model)


def _classification(folder: Path, share: float, **chosen: Any) -> TrainingCase:  # noqa: ANN401
    """MiniLM on 2,000 snippets of film reviews, two epochs; 1,500 others held out."""
    train, held_out = split_snippets(read_snippets())
    train, held_out = train[: int(2000 * share)], held_out[: int(1500 * share)]
    data, held_out_data = folder / "train.csv", folder / "held_out.csv"
    write_snippets(data, train), write_snippets(held_out_data, held_out)
    config = replace(FILM_REVIEWS, data=str(data), held_out_data=str(held_out_data), epochs=2.0, **WHOLE, **chosen)
    return TrainingCase(config, train, held_out, LABELS)


def _generation(folder: Path, share: float) -> TrainingCase:
    """SmolLM2 on chats of one to four turns, strung together from the example chats, one epoch; 20 held out."""
    chance = random.Random(0)
    turns = [json.loads(line)["messages"] for line in CHATS.read_text(encoding="utf-8").splitlines()]
    turns = [[turn for turn in chat if turn["role"] != "system"] for chat in turns]
    held, kept = turns[:20], turns[20:]
    # Each chat once: Graft leaves repeated rows out.
    chats = [kept[i] for i in chance.sample(range(len(kept)), int(26 * share))]
    chats += [list(chain(*chance.sample(kept, chance.choice((2, 3, 4))))) for _ in range(int(38 * share))]
    options = {"rank": 8, "alpha": 16.0, "learning_rate": 5e-4, "max_length": 1024, "quantize": "none"}
    return chat_case("generation", folder, SMOLLM, chats, held, **options)


def chat_case(name: str, folder: Path, model: str, train: Any, held_out: Any, **chosen: Any) -> TrainingCase:  # noqa: ANN401
    """Make a case of conversations, one epoch in batches of four; both sides learn the same tokens."""
    data, held_out_data = folder / "chats.jsonl", folder / "held_chats.jsonl"
    for path, chats in ((data, train), (held_out_data, held_out)):
        path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats), encoding="utf-8")
    spec, chosen = TabSpec("generation", model, "causal-lm", Columns(messages="messages")), {**WHOLE, **chosen}
    config = TrainConfig.for_tab(spec, data, name, held_out_data=str(held_out_data), epochs=1.0, **chosen)
    tokenizer = load_tokenizer(_find(model))
    encoded = [[_encode(tokenizer, chat) for chat in chats] for chats in (train, held_out)]
    return TrainingCase(config, encoded[0], encoded[1])


def _encode(tokenizer: Any, chat: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:  # noqa: ANN401
    """Encode a conversation; labels are token ids where something is learned, and -100 elsewhere."""
    ids, learned = encode(tokenizer, chat)
    labels = [token if any(a <= i < b for a, b in learned) else -100 for i, token in enumerate(ids)]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


def live(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the seconds until an answer, and their parts."""
    options = measure.parse(__doc__, arguments, rounds=5, rows=500)
    train, tried = split_snippets(read_snippets())
    train, tried = train[: options.rows], tried[:TRIED]
    home, data = folder / "home", write_snippets(folder / "rows.csv", train)
    measure.link_models(home)
    config = replace(FILM_REVIEWS, name="live", data=str(data), epochs=3.0, promote=True, held_out=HELD_OUT)
    # The peer trains on as many rows as Graft does, and has no held-out rows to look at.
    case = TrainingCase(config, train[: round(len(train) * (1 - HELD_OUT))], tried, LABELS)
    with serve_app(home, dict.fromkeys(("classification", "summarization", "generation"), "")) as app:
        client = app.client()
        _ask(client, tried[0][0])  # waits for the base
        contenders = {"stock": partial(_live_stock, case, folder), "graft": partial(_live_graft, case, home, client)}
        return measure.summarize(measure.alternate(contenders, options.rounds), {"graft": "stock"})


def _live_stock(case: TrainingCase, folder: Path, seed: int) -> Figures:
    started = time.time()
    trained, answered = (case.run_peer(act, folder, seed) for act in ("save", "answer"))
    times = started, trained["began"], trained["trained"], answered["answered"]
    return live_figures(times, answered["answers"], case.held_out)


def _live_graft(case: TrainingCase, home: Path, client: Client, seed: int) -> Figures:
    settings = replace(Settings.from_env(), home=home)
    runs, store = Runs(settings), AdapterStore(home, settings.shipped)
    # Another seed is another split, so that nothing of it was prepared before.
    config = replace(case.config, name=f"live-{seed}", seed=seed)
    started = time.time()
    run = runs.wait(runs.submit(config).id, every_s=0.1)
    if run.version is None:
        raise RuntimeError(f"The run published nothing: {run.result}")
    if not run.result.get("promoted"):
        # The version that ships with Graft learned from thousands of rows: the gate leaves a lesser one to a person.
        store.promote(config.plugin, run.version, "The gate left it to a person.", "bench live")
    _, version = _ask(client, case.held_out[0][0])
    answered = time.time()
    if version != run.version:
        raise RuntimeError(f"{run.version} is live and {version} answered.")
    at = [event["at"] for event in read_events(run.folder) if event["kind"] == "step" or event.get("phase") == "train"]
    answers = [_ask(client, text)[0] for text, _ in case.held_out]
    return live_figures((started, at[0], at[-1], answered), answers, case.held_out)


def live_figures(times: Sequence[float], answers: Sequence[str], rows: Sequence[Snippet]) -> Figures:
    """Name the seconds between start, first step, last step and first answer, and the share of right answers."""
    names = "until it trains", "training", "until it answers"
    parts = dict(zip(names, (later - earlier for earlier, later in pairwise(times)), strict=True))
    right = statistics.mean(answer == label for answer, (_, label) in zip(answers, rows, strict=True))
    return {"seconds": times[-1] - times[0], **parts, "accuracy": right}


def _ask(client: Client, text: str) -> tuple[str, str]:
    """Return the label and version of the tab's answer."""
    answer, by = client.predict(text, adapter="live", api_name="/classification")
    return str(answer["label"]), str(by["version"])
