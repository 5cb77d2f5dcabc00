"""The shape of the package: imports go downward, heavy libraries stay in corners, files and functions stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "searchr1"

LEVELS = {
    # L0: the shared vocabulary; standard library only
    "types": 0, "ports": 0, "errors": 0, "seeds": 0, "machine": 0, "changes": 0,
    # L1: pure parts that know nothing of each other
    "protocols": 1, "rewards": 1, "algorithms": 1, "tokenization": 1, "alarms": 1,
    # L2: what touches models, indexes and files
    "retrieval": 2, "engines": 2, "data": 2, "training": 2,
    # L3: question -> trajectory -> score
    "agents": 3, "evaluation": 3,
    # L4: runs
    "run_files": 4, "trajectory_io": 4, "run": 4, "config": 4, "assemble": 4, "sources": 4, "metrics": 4, "train": 4,
    "learn": 4, "waiting": 4,
    "benchmarks": 4, "report": 4, "studies": 4, "leaderboard": 4, "supervised": 4,
    # L5: the command line
    "console": 5, "display": 5, "commands": 5, "cli": 5,
}  # fmt: skip
"""Every module and package directly under ``searchr1``. A new one gets its level here."""

FOUNDATION, COMMAND_LINE = 0, 5
REPORT_READS = {"run", "run_files", "types", "errors"}
MAX_LINES, MAX_FUNCTION_LINES = 400, 60

HEAVY = {
    "torch": {
        "algorithms",
        "engines",
        "training",
        "assemble",
        "train",
        "benchmarks",
        "retrieval.rerank",
        "retrieval.dense",
    },
    "transformers": {"engines", "training", "tokenization", "benchmarks", "retrieval.rerank", "retrieval.dense"},
    "sentence_transformers": {"retrieval.rerank", "retrieval.dense"},
    "faiss": {"retrieval.dense", "benchmarks"},
    "onnxruntime": {"retrieval.dense"},
    "safetensors": {"engines", "training", "retrieval.dense"},
    "tantivy": {"retrieval.bm25", "benchmarks"},
    "starlette": {"retrieval.serving"},
    "uvicorn": {"retrieval.serving", "benchmarks"},
    "mcp": {"retrieval.serving"},
    "httpx": {"data.download", "retrieval.client", "retrieval.host", "retrieval.online", "engines.chat_http"},
    "pydantic": {"config", "benchmarks", "studies"},
    "pyarrow": {"data.parquet"},
    "trafilatura": {"retrieval.online"},
    "qdrant_client": {"retrieval.clusters"},
}
"""Where each heavy library may be imported, at the top or inside a function: a unit, or a part of it."""

LIGHT = ("types", "ports", "errors", "rewards", "protocols", "algorithms", "agents", "engines", "retrieval", "data",
         "training", "evaluation", "report", "commands", "cli")  # fmt: skip
"""What may be imported without importing any heavy library."""


@dataclass(frozen=True)
class Import:
    """``module`` (a dotted name without ``searchr1``) imports ``target`` at ``line``."""

    module: str
    target: str
    line: int
    typing_only: bool

    @property
    def unit(self) -> str:
        return self.module.split(".")[0]

    @property
    def own(self) -> str | None:
        """The unit of this package that is imported; None for other packages and for ``searchr1`` itself."""
        first, *rest = self.target.split(".")
        return rest[0] if first == "searchr1" and rest and rest[0] in LEVELS else None

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


@cache
def sources() -> dict[str, str]:
    """Dotted module name -> its text; ``protocols`` for ``protocols/__init__.py``, "" for the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imports_of(module: str, text: str) -> Iterator[Import]:
    tree = ast.parse(text)
    guarded = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    typing_only = {id(inner) for node in guarded for inner in ast.walk(node)}
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write the whole name of what is imported"
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        for target in targets:
            yield Import(module, target, node.lineno, id(node) in typing_only)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for module, text in sources().items() for found in imports_of(module, text))


def listed(offenders: Iterator[object] | list[str]) -> str:
    return "\n".join(map(str, offenders))


def test_every_unit_has_a_level() -> None:
    units = {module.split(".")[0] for module in sources()} - {""}
    assert units - set(LEVELS) == set()


def test_imports_go_downward() -> None:
    """Below, or beside on the levels that are built in layers themselves (L0 and from L3 on); never upward."""

    def allowed(found: Import) -> bool:
        if found.own is None or found.own == found.unit:
            return True
        here, there = LEVELS[found.unit], LEVELS[found.own]
        return there < here or (there == here and here not in (1, 2))

    assert not listed(found for found in all_imports() if found.unit and not allowed(found))


def test_no_two_units_import_each_other() -> None:
    needs = {unit: {found.own for found in all_imports() if found.unit == unit} - {None, unit} for unit in LEVELS}
    while leaves := [unit for unit, below in needs.items() if not below]:
        needs = {unit: below - set(leaves) for unit, below in needs.items() if unit not in leaves}
    assert not needs, f"these import each other in a circle: {needs}"


def test_the_foundation_needs_only_the_standard_library() -> None:
    base = [found for found in all_imports() if LEVELS.get(found.unit) == FOUNDATION and not found.typing_only]
    assert len(base) > 10
    assert not listed(
        found for found in base if found.own is None and found.target.split(".")[0] not in sys.stdlib_module_names
    )


def test_the_report_reads_the_run_folder_and_only_the_command_line_knows_it() -> None:
    assert {found.own for found in all_imports() if found.unit == "report"} - {None, "report"} <= REPORT_READS
    assert {found.unit for found in all_imports() if found.own == "report"} <= {"report", "commands"}


def test_heavy_libraries_stay_in_their_corners() -> None:
    def allowed(found: Import) -> bool:
        places = HEAVY.get(found.target.split(".")[0])
        parts = found.module.split(".")
        within = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        return places is None or found.typing_only or bool(within & places)

    assert not listed(found for found in all_imports() if not allowed(found))


def test_importing_the_package_imports_no_heavy_library() -> None:
    names = [f"searchr1.{name}" for name in LIGHT if name in sources()]
    code = f"import sys, {', '.join(names)}\nprint(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_files_are_small() -> None:
    lines = {module: len(text.splitlines()) for module, text in sources().items()}
    assert not listed(f"{module} has {count} lines" for module, count in lines.items() if count > MAX_LINES)


def test_functions_are_short() -> None:
    def long_functions(module: str, text: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield f"{module}:{node.lineno} {node.name} has {length} lines"

    assert not listed(found for module, text in sources().items() for found in long_functions(module, text))


def unexplained_excepts(module: str, text: str) -> Iterator[str]:
    """Handlers of everything that give no reason in a comment: on their line, the line before or the line after."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        names = {inner.id for inner in ast.walk(node.type) if isinstance(inner, ast.Name)} if node.type else {"all"}
        near = "\n".join(lines[node.lineno - 2 : node.lineno + 1])
        if names & {"all", "Exception", "BaseException"} and "#" not in near:
            yield f"{module}:{node.lineno} {lines[node.lineno - 1].strip()}"


def test_broad_excepts_say_why() -> None:
    assert not listed(found for module, text in sources().items() for found in unexplained_excepts(module, text))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("try: pass\nexcept: pass", 1),
        ("try: pass\nexcept (OSError, Exception): pass", 1),
        ("try: pass\nexcept BaseException as error:\n    raise", 1),
        ("try: pass\nexcept Exception:  # the process must not die\n    pass", 0),
        ("try: pass\nexcept Exception:\n    # the process must not die\n    pass", 0),
        ("try: pass\nexcept OSError: pass", 0),
    ],
)
def test_the_search_for_broad_excepts(text: str, count: int) -> None:
    assert len(list(unexplained_excepts("m", text))) == count


def test_the_search_for_imports() -> None:
    text = (
        "import torch.nn as nn\nfrom searchr1.types import Turn\nfrom searchr1 import __version__, agents\n"
        "if TYPE_CHECKING:\n    import httpx\ndef f():\n    from searchr1.run import RunFolder\n"
    )
    found = list(imports_of("data.jsonl", text))
    assert [(i.target, i.own, i.line, i.typing_only) for i in sorted(found, key=lambda i: (i.line, i.target))] == [
        ("torch.nn", None, 1, False),
        ("searchr1.types.Turn", "types", 2, False),
        ("searchr1.__version__", None, 3, False),
        ("searchr1.agents", "agents", 3, False),
        ("httpx", None, 5, True),
        ("searchr1.run.RunFolder", "run", 7, False),
    ]
