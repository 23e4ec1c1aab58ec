"""The direction of imports, what importing the page may cost, and what no module of ours may do, seen in its syntax."""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BOTTOM = ("errors", "process_setup", "settings", "tasks")
STORE = ("store", *BOTTOM)
MODELS = ("models", "hub", *STORE)
RUNS = (
    "training.config", "training.events", "training.cli", "training.data.files", "training.data.inspect.inspect_client",
    "training.data.inspect.report", "training.data.rows", "training.estimate", "training.runs",
)  # fmt: skip
"""The parent's side of training: modules that the page may import. The rest belongs to child processes."""
ALLOWED = {
    "errors": (),
    "process_setup": (),
    "settings": ("errors", "process_setup"),
    "tasks": ("errors",),
    "store": STORE,
    "hub": ("hub", *STORE),
    "models": MODELS,
    "serving": ("serving", *MODELS),
    "training": ("training", *MODELS),
    "plugins": ("plugins", "serving", *MODELS),
    "ui": ("ui", "plugins", "serving", *RUNS, *MODELS),
    "app": ("ui", "plugins", "serving", "training.runs", *MODELS),
    "bench": ("bench", "serving", "training", *MODELS),
    "graft": (),
}
"""What the modules of each package may import of ours; a name stands for everything below it."""
LEAST_MODULES = {"store": 8, "hub": 7, "models": 9, "serving": 18, "training": 45, "plugins": 6, "ui": 30, "bench": 2}
WITH_TORCH = (
    "models", "serving", "serving.base", "serving.generation", "training", "training.data", "training.data.inspect",
    "training.loop", "training.publish", "bench", "bench.finetuning", "bench.inference",
    "bench.peers",
)  # fmt: skip
"""Folders whose modules may import torch. No module of any other folder imports it, directly or through others."""
WITHOUT_TORCH = (
    "serving.lm", "serving.pool", "training.config", "training.events", "training.data.rows",
    "training.data.inspect.inspect_client", "training.data.inspect.report",
)  # fmt: skip
"""Modules of those folders that the page imports before it is up."""
SHORT = {
    "app": "entry of a process",
    "graft": "entry of a process",
    "bench.random_bases": "entry of a process",
    "bench.peers.datasets_map": "entry of a process",
    "plugins.classification": "a tab is one file",
    "plugins.summarization": "a tab is one file",
    "process_setup": "runs before torch and Gradio are imported",
    "training.loop.lean_imports": "runs before torch is imported",
    "serving.loaded": "keeps torch out of the pool",
    "models.tokenizer": "keeps torch out of the preview of rows",
}
"""Modules of fewer than 60 lines, each with the reason why it stands alone."""
WITH_GRADIO = ("app", "ui", "plugins", "bench.peers")
HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "bitsandbytes")
PICKLES = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
SHORTEST_MODULE, LONGEST_MODULE, LONGEST_FUNCTION, LARGEST_ROOM = 60, 500, 50, 10


def module_name(path: Path) -> str:
    """`models/resolve.py` -> models.resolve, `store/__init__.py` -> store."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def find_modules() -> dict[str, Path]:
    """Every module of ours, tests aside: those at the top and those in packages that git does not ignore."""
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    folders = [p for p in sorted(ROOT.iterdir()) if p.is_dir() and not any(fnmatchcase(p.name, i) for i in ignored)]
    packages = [folder for folder in folders if (folder / "__init__.py").exists() and folder.name != "tests"]
    paths = [*sorted(ROOT.glob("*.py")), *(path for folder in packages for path in sorted(folder.rglob("*.py")))]
    return {module_name(path): path for path in paths}


MODULES = find_modules()
TESTS = {module_name(path): path for path in sorted((ROOT / "tests").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in (MODULES | TESTS).items()}
TABS = [name for name in MODULES if name.startswith("plugins.") and not name.startswith("plugins._")]


def below(name: str, tops: tuple[str, ...]) -> bool:
    """Whether `name` is one of `tops` or lies in it."""
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import anywhere in the tree; names of modules are followed into `from package import`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for full in (f"{module}.{alias.name}" for alias in node.names):
                yield node.lineno, full if full in MODULES else module


def at_module_level(tree: ast.Module) -> ast.Module:
    """The tree without what is not run when it is imported: bodies of functions, and `if TYPE_CHECKING`."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST:
            return ast.Pass() if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Prune().visit(ast.parse(ast.unparse(tree)))


def wrong_imports(name: str, tree: ast.AST) -> list[str]:
    """Imports that point up or sideways, and relative ones, whose direction cannot be seen."""
    package = name.partition(".")[0]
    ours = {module.partition(".")[0] for module in MODULES} | {"tests"}
    found = []
    for line, module in imports(tree):
        top = module.partition(".")[0]
        if (top in ours or not top) and not below(module, ALLOWED[package]):
            found.append(f"{name}:{line} imports {module}")
        if top == "gradio" and not below(name, WITH_GRADIO):
            found.append(f"{name}:{line} imports gradio")
    return found


def forbidden(name: str, tree: ast.AST) -> list[str]:
    """What no module does: read the environment beside settings.py, run a shell, or run code that arrives as data."""
    found = [f"{name}:{line} imports {module}" for line, module in imports(tree) if below(module, PICKLES)]
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.ImportFrom) else ""
        if isinstance(node, ast.Attribute) and text in ("torch.load", "os.system", "os.popen"):
            found.append(f"{name}:{node.lineno} uses {text}")
        environment = text in ("os.environ", "os.getenv", "os.putenv") or text.startswith(
            ("from os import env", "from os import get")
        )
        if environment and name != "settings":
            found.append(f"{name}:{node.lineno} reads the environment")
        if isinstance(node, ast.Call):
            found += [f"{name}:{node.lineno} {problem}" for problem in forbidden_call(node)]
    return found


def forbidden_call(call: ast.Call) -> Iterator[str]:
    """What is wrong with one call."""
    called = ast.unparse(call.func)
    if called in ("eval", "exec", "__import__"):
        yield f"calls {called}"
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    for argument in ("shell", "trust_remote_code", "allow_pickle"):
        if argument in given and ast.unparse(given[argument]) != "False":
            yield f"passes {argument}={ast.unparse(given[argument])}"
    if called.startswith("Auto") and called.endswith(".from_pretrained") and "trust_remote_code" not in given:
        yield f"calls {called} without trust_remote_code=False"


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """(name, first line, lines) of every function and method, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def length(name: str) -> int:
    """Lines of a module."""
    return len((MODULES | TESTS)[name].read_text(encoding="utf-8").splitlines())


def is_entry(path: Path) -> bool:
    """Whether a file is a package's own, or what `python -m` runs."""
    return path.name in ("__init__.py", "__main__.py")


def room(name: str) -> str:
    """The folder of a module, as a package: `store.files` -> store; the package itself for its `__init__`."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def test_every_module_is_looked_at() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(ALLOWED), "a new package needs a row in ALLOWED"
    counts = {package: sum(below(name, (package,)) for name in MODULES) for package in LEAST_MODULES}
    assert all(counts[package] >= least for package, least in LEAST_MODULES.items()), counts
    assert counts == {package: len(list((ROOT / package).rglob("*.py"))) for package in counts}
    assert len(MODULES) == sum(counts.values()) + len(list(ROOT.glob("*.py"))) >= 67
    assert {"plugins.classification", "plugins.summarization", "plugins.generation"} <= set(TABS)
    assert len(TESTS) >= 20


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    assert not wrong_imports(name, TREES[name])


@pytest.mark.parametrize("name", MODULES)
def test_r01_r02_r17_nothing_forbidden_is_done(name: str) -> None:
    assert not forbidden(name, TREES[name])


@pytest.mark.parametrize("name", TABS)
def test_a_built_in_tab_uses_the_public_contract_alone(name: str) -> None:
    ours = {module for _, module in imports(TREES[name]) if below(module, tuple(ALLOWED))}
    assert ours == {"plugins"}


@pytest.mark.parametrize("name", [name for name in MODULES if below(name, ("plugins",))])
def test_no_plugin_imports_torch_at_module_level(name: str) -> None:
    assert not [module for _, module in imports(at_module_level(TREES[name])) if below(module, HEAVY)]


@pytest.mark.parametrize("name", [*MODULES, *TESTS])
def test_a_module_and_its_functions_are_short(name: str) -> None:
    assert length(name) <= LONGEST_MODULE
    assert not [f"{f}:{line} has {n} lines" for f, line, n in functions(TREES[name]) if n > LONGEST_FUNCTION]


def test_the_usual_function_is_short() -> None:
    assert statistics.median(lines for name in MODULES for _, _, lines in functions(TREES[name])) <= 8


def test_a_short_module_stands_alone_for_a_reason() -> None:
    short = {name for name, path in MODULES.items() if length(name) < SHORTEST_MODULE and not is_entry(path)}
    assert short == set(SHORT) and all(SHORT.values())


def test_a_folder_has_few_entries() -> None:
    rooms: dict[Path, set[str]] = defaultdict(set)
    for path in MODULES.values():
        for part in (path, *path.parents):
            if part != ROOT and part.is_relative_to(ROOT) and not is_entry(part):
                rooms[part.parent].add(part.name)
    del rooms[ROOT]
    assert len(rooms) >= 20
    assert not {str(room): sorted(names) for room, names in rooms.items() if len(names) > LARGEST_ROOM}


def test_no_name_of_a_file_or_class_stands_twice() -> None:
    files = Counter(path.name for path in MODULES.values() if not is_entry(path))
    trees = [tree for name, tree in TREES.items() if name in MODULES and not below(name, ("bench",))]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    classes = Counter(node.name for node in nodes if not node.name.startswith("_"))
    assert len(files) > 100 and len(classes) > 100
    assert not [name for name, count in (files | classes).items() if count > 1]


IMPORT = """
import importlib, json, sys, threading
names, heavy = json.load(sys.stdin)
for name in names:
    importlib.import_module(name)
    loaded = [module for module in heavy if module in sys.modules]
    if loaded:
        sys.exit(f"{name} imports {', '.join(loaded)}")
print(json.dumps([threading.active_count(), "demo" in vars(sys.modules["app"])]))
"""


def test_r38_importing_the_page_imports_no_torch(tmp_path: Path) -> None:
    """Everything before the page is up: seconds of imports belong to the thread that loads models."""
    without = {name for name in MODULES if room(name) not in WITH_TORCH and not name.endswith("__main__")}
    names = sorted(without | set(WITHOUT_TORCH), key=lambda name: (name == "app", name))
    assert len(names) >= 80 and names[-1] == "app"
    child = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT],
        input=json.dumps([names, HEAVY]), cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GRAFT_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == [1, True], "importing starts no thread and makes the page"


@pytest.mark.parametrize(
    "source",
    [
        "import os\nprint(os.environ['HOME'])", "import os\nos.getenv('HOME')", "from os import environ",
        "import pickle", "from joblib import load", "import torch\ntorch.load('x')", "eval('1')", "exec('1')",
        "run('ls', shell=True)", "load('x', trust_remote_code=True)", "load('x', trust_remote_code=None)",
        "AutoModel.from_pretrained('x')", "np.load('x', allow_pickle=True)", "import os\nos.system('ls')",
    ],
)  # fmt: skip
def test_r01_r02_r17_the_check_sees_what_is_forbidden(source: str) -> None:
    assert len(forbidden("store.example", ast.parse(source))) == 1


@pytest.mark.parametrize(
    "name, source",
    [
        ("serving.x", "from plugins import TaskPlugin"), ("training.x", "import ui.shell"),
        ("training.x", "import gradio as gr"),
        ("store.x", "from hub import client"), ("hub.x", "from models import resolve"),
        ("training.x", "def f():\n    from serving.pool import Pool"),
        ("plugins.x", "from training import runs"), ("store.x", "from serving import pool"),
        ("tasks", "from settings import Settings"), ("ui.x", "import app"), ("ui.x", "from training import worker"),
        ("ui.x", "from training.worker import main"), ("store.x", "from . import files"),
        ("store.x", "import tests.helpers.tiny"), ("serving.x", "from bench import snippets"),
    ],
)  # fmt: skip
def test_the_check_sees_an_import_that_points_up(name: str, source: str) -> None:
    assert len(wrong_imports(name, ast.parse(source))) == 1


def test_the_checks_let_pass_what_is_meant() -> None:
    fine = "import os\nos.path.join('a')\nmodel.eval()\nAutoModel.from_pretrained('x', trust_remote_code=False)"
    assert not forbidden("store.example", ast.parse(fine))
    assert not wrong_imports(
        "ui.x", ast.parse("import gradio\nfrom training import runs\nfrom models.resolve import Model")
    )
    lazy = "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    eager = "try:\n    import torch\nexcept ImportError:\n    pass"
    assert [list(imports(at_module_level(ast.parse(source)))) for source in (lazy, eager)] == [[], [(2, "torch")]]
