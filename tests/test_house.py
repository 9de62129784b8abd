"""The house's own rules: its public names, who may know whom, and what an import costs.

The rooms are read from the source with ``ast``, so that a rule holds for imports inside functions too.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import moa_nb

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moa_nb"

ROOMS = (
    "plain",
    "money",
    "errors",
    "options",
    "chat",
    "tokens",
    "settings",
    "templating",
    "providers",
    "store",
    "gateway",
    "pipeline",
    "engine",
    "history",
    "panels",
    "frames",
    "evaluation",
    "notebook",
    "testing",
)
"""From the ground up: a room knows itself and the rooms before it."""

DOORS = {
    # A result shows itself; what it looks like is decided where things are drawn.
    ("pipeline/result.py", "show", "notebook"),
    ("frames/run.py", "show", "notebook"),
    ("evaluation/evaluation.py", "show", "notebook"),
    ("pipeline/result.py", "_repr_mimebundle_", "panels"),
    ("pipeline/explain.py", "_repr_mimebundle_", "panels"),
    # A pipeline is explained by going through it with nobody asked.
    ("pipeline/spec.py", "explain", "engine"),
    ("pipeline/spec.py", "to_toml", "engine"),
}
"""The imports that go up, each inside one function: file, function, room."""

OWNERS = {
    "aiohttp": ("gateway/", "testing/wire.py"),
    "jinja2": ("templating/",),
    "sqlite3": ("store/",),
    "dask": ("frames/dask/",),
    "distributed": ("frames/dask/",),
    "splintr": ("tokens/",),
    "IPython": ("notebook/",),
    "ipywidgets": ("notebook/",),
    "anywidget": ("notebook/",),
}
"""The libraries that only some rooms may import."""

WAITING = (
    "IPython",
    "aiohttp",
    "anywidget",
    "dask",
    "genai_prices",
    "ipywidgets",
    "jinja2",
    "markdown_it",
    "matplotlib",
    "nest_asyncio2",
    "nh3",
    "orjson",
    "pydantic",
    "sentencex",
    "splintr",
    "sqlite3",
    "uvloop",
)
"""What ``import moa_nb`` must leave unloaded."""


@dataclass(frozen=True)
class Import:
    """One import of one module, as the source says it."""

    file: str
    """The file's path below the package."""
    line: int
    function: str
    """The function it stands in; empty at the top of the module."""
    module: str

    @property
    def room(self) -> str:
        """The room it reaches; empty for a library."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "moa_nb" and len(parts) > 1 else ""

    def __str__(self) -> str:
        return f"moa_nb/{self.file}:{self.line} imports {self.module}"


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Return the package's files by their path below it, parsed."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text("utf-8")) for file in files}


def is_for_annotations(node: ast.AST) -> bool:
    """Return whether a node is an ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imported(node: ast.Import | ast.ImportFrom, file: str) -> Iterator[str]:
    """Yield the modules that a statement names; ``from moa_nb import x`` names ``moa_nb.x``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    module = node.module or ""
    if node.level:
        above = ["moa_nb", *Path(file).parts[:-1]]
        module = ".".join([*above[: len(above) - node.level + 1], *filter(None, [module])])
    if module == "moa_nb":
        yield from (f"moa_nb.{alias.name}" for alias in node.names)
    else:
        yield module


def imports(tree: ast.AST, file: str, function: str = "") -> Iterator[Import]:
    """Yield what runs as an import, at whatever depth.

    What stands under ``if TYPE_CHECKING:`` is left out: it never runs. That such names serve
    annotations only is a test of its own.
    """
    for node in ast.iter_child_nodes(tree):
        if is_for_annotations(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield from imports(other, file, function)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Import(file, node.lineno, function, module) for module in imported(node, file))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, file, node.name)
        else:
            yield from imports(node, file, function)


def all_imports() -> list[Import]:
    """Return every running import of the package, except those of ``moa_nb/__init__.py``, which opens all rooms."""
    return [one for file, tree in sources().items() if file != "__init__.py" for one in imports(tree, file)]


def room_of(file: str) -> str:
    """Return the room of a file by its path below the package."""
    return Path(file).parts[0].removesuffix(".py")


def tracked() -> list[Path]:
    """Return the project's files: those that git knows or would take, else all that are no one's output."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if listed.returncode == 0:
            return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    places = ("moa_nb", "templates", "examples", "tests", ".ci")
    inside = [file for place in places for file in (ROOT / place).rglob("*") if "__pycache__" not in file.parts]
    return [file for file in [*ROOT.glob("*.*"), *inside] if file.is_file()]


# Public names -----------------------------------------------------------------------------------


def test_public_names_are_sorted() -> None:
    """``__all__`` holds each public name once, in order."""
    assert moa_nb.__all__ == sorted(set(moa_nb.__all__))


def test_public_names_have_homes() -> None:
    """The table of homes holds the public names and nothing else, in the same order."""
    assert list(moa_nb._HOMES) == moa_nb.__all__


def test_type_checkers_see_the_same_homes() -> None:
    """What type checkers read under ``TYPE_CHECKING`` is what is imported when a name is used."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    blocks = [node for node in tree.body if is_for_annotations(node)]
    seen = {
        alias.asname or alias.name: node.module
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moa_nb")
        for alias in node.names
    }
    assert seen == moa_nb._HOMES


@pytest.mark.parametrize("name", moa_nb.__all__)
def test_a_public_name_says_what_it_is(name: str) -> None:
    """Every public name is there, under its own name, with a docstring whose first line says something."""
    value = getattr(moa_nb, name)
    own = value.__doc__ or ""
    assert value.__name__ == name
    assert name in dir(moa_nb)
    assert re.match(r"\S.{9,}", own), f"moa_nb.{name} has no docstring of its own"
    if inspect.isclass(value):
        # What dataclasses write themselves repeats the signature.
        assert not own.startswith(f"{name}(")


@pytest.mark.parametrize("name", sorted(set(moa_nb._HOMES.values())))
def test_a_home_exports_its_names(name: str) -> None:
    """A public name is also public where it lives."""
    home = importlib.import_module(name)
    names = {public for public, where in moa_nb._HOMES.items() if where == name}
    assert names <= set(home.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there fails as it does in any module, and names the module."""
    with pytest.raises(AttributeError, match=r"moa_nb.*no_such_name"):
        _ = moa_nb.no_such_name


def test_the_extension_can_be_loaded_and_unloaded() -> None:
    """IPython finds both of its hooks."""
    assert callable(moa_nb.load_ipython_extension)
    assert callable(moa_nb.unload_ipython_extension)


def test_the_version_is_said_once() -> None:
    """The version stands in ``moa_nb/__init__.py``; the build reads it there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", moa_nb.__version__)


# Who may know whom ------------------------------------------------------------------------------


def test_every_file_is_in_a_room() -> None:
    """A new room gets its place in the order before anything can import it."""
    assert {room_of(file) for file in sources()} <= {*ROOMS, "__init__"}


def test_a_room_knows_only_rooms_below_it() -> None:
    """Imports go down, inside functions too; the few that go up are named, and all of them are used."""
    up, doors = [], set()
    for one in all_imports():
        if not one.room or ROOMS.index(one.room) <= ROOMS.index(room_of(one.file)):
            continue
        door = (one.file, one.function, one.room)
        if door in DOORS:
            doors.add(door)
        else:
            up.append(str(one))
    assert up == []
    assert doors == DOORS


def test_the_pipeline_meets_models_only_through_ask() -> None:
    """``pipeline`` imports neither ``store`` nor ``gateway`` nor ``providers``."""
    direct = [
        str(one)
        for one in all_imports()
        if room_of(one.file) == "pipeline" and one.room in {"store", "gateway", "providers"}
    ]
    assert direct == []


def test_no_room_imports_the_whole_house() -> None:
    """Rooms import rooms, never ``moa_nb`` itself, which would hide whom they know."""
    whole = [
        str(one)
        for one in all_imports()
        if one.module == "moa_nb" or one.room in {*moa_nb.__all__, "__version__"} - {*ROOMS}
    ]
    assert whole == []


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    """A library that shapes a room's work comes into no other room."""
    strangers = [
        str(one)
        for one in all_imports()
        if one.module.split(".")[0] == library and not one.file.startswith(OWNERS[library])
    ]
    assert strangers == []


def test_only_the_settings_read_the_environment() -> None:
    """``os.environ`` and ``os.getenv`` stand in ``settings.py`` alone."""
    readers = []
    for file, tree in sources().items():
        for node in ast.walk(tree):
            is_attribute = isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
            is_name = (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and {"environ", "getenv"} & {a.name for a in node.names}
            )
            if (is_attribute or is_name) and room_of(file) != "settings":
                readers.append(f"moa_nb/{file}: {ast.unparse(node)}")
    assert readers == []


def test_what_only_type_checkers_import_serves_annotations() -> None:
    """A name imported under ``TYPE_CHECKING`` is never needed while the code runs: that is why it may come from any room."""
    needed = []
    for file, tree in sources().items():
        blocks = [node for node in ast.walk(tree) if is_for_annotations(node)]
        hidden = {id(node) for block in blocks for node in ast.walk(block)}
        names = {
            (alias.asname or alias.name).split(".")[0]
            for block in blocks
            for node in ast.walk(block)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        otherwise = [node for block in blocks for part in block.orelse for node in ast.walk(part)]
        names -= {node.id for node in otherwise if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for node in ast.walk(tree):
            if id(node) in hidden:
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                # A function that needs the name imports it itself.
                names -= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            for field in ("annotation", "returns"):
                annotation = getattr(node, field, None)
                if isinstance(annotation, ast.AST):
                    hidden |= {id(part) for part in ast.walk(annotation)}
        needed += [
            f"moa_nb/{file}:{node.lineno} needs {node.id}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and node.id in names and id(node) not in hidden
        ]
    assert needed == []


# Order in the house -----------------------------------------------------------------------------


def test_files_are_named_by_what_they_are_about() -> None:
    """No file is a drawer for everything."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "handler"}
    assert [file for file in sources() if drawers & {*Path(file).with_suffix("").parts}] == []


def test_the_package_is_typed() -> None:
    """Type checkers are told that the package's annotations count."""
    assert (PACKAGE / "py.typed").is_file()


def undocumented(tree: ast.AST, prefix: str) -> Iterator[str]:
    """Yield the public classes, functions and methods below a node that say nothing about themselves."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from undocumented(node, prefix)
            continue
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
        if node.name.startswith("_") or decorators & {"overload", "override", "setter"}:
            continue
        if not ast.get_docstring(node):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node, f"{prefix}{node.name}.")


def test_everything_public_says_what_it_is() -> None:
    """Every module, and every public class, function and method in it, has a docstring."""
    silent = []
    for file, tree in sources().items():
        if not ast.get_docstring(tree):
            silent.append(f"moa_nb/{file}")
        silent += undocumented(tree, f"moa_nb/{file}: ")
    assert silent == []


def test_no_file_knows_whose_machine_it_was_written_on() -> None:
    """No file, notebooks with their outputs included, holds a path of the machine it was written on."""
    place = re.compile(r"(?<![\w.:/~$}-])/(?:work/|root/|tmp/ipykernel_)\w")
    found = []
    for file in tracked():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {match[0]}" for match in place.finditer(text)]
    assert found == []


# What an import costs ---------------------------------------------------------------------------


def fresh(program: str) -> dict[str, object]:
    """Return the JSON object that a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("loaded_before", ["pandas", "pandas, IPython"])
def test_importing_loads_only_what_is_needed_at_once(loaded_before: str) -> None:
    """``import moa_nb`` registers the accessors and leaves every library that comes in later unloaded."""
    program = """
import json, sys
import BEFORE
before = set(sys.modules)
import moa_nb
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"loaded": sorted(loaded), "frame": hasattr(pandas.DataFrame, "moa"), "series": hasattr(pandas.Series, "moa")}))
"""
    answer = fresh(program.replace("BEFORE", loaded_before))
    loaded = answer["loaded"]
    assert isinstance(loaded, list)
    assert [name for name in WAITING if name in loaded] == []
    assert answer["frame"]
    assert answer["series"]


def test_importing_is_quick() -> None:
    """``import moa_nb`` costs little CPU on top of pandas and IPython: a wide bound, since machines differ."""
    program = """
import json, time
import IPython, pandas
start = time.process_time()
import moa_nb
print(json.dumps({"seconds": time.process_time() - start}))
"""
    seconds = fresh(program)["seconds"]
    assert isinstance(seconds, float)
    assert seconds < 0.5
