"""What is built and installed: the wheel, the sdist and the editable install, each away from the checkout.

A checkout finds its templates beside the package, so only an installed copy can show that they are shipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import moa_nb

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

PROGRAM = """
import json
import moa_nb as moa
from moa_nb import templating
from moa_nb.pipeline import presets
from moa_nb.settings import services

prompt = templating.load("synthesize").render({"references": ["one", "two"], "fence": "mark"})
panel = templating.panel_environment().get_template("panels/panel.html.jinja")
print(json.dumps({
    "package": moa.__file__,
    "version": moa.__version__,
    "templates": str(templating.root()),
    "prompt": prompt,
    "panel": panel.name,
    "pipelines": sorted(presets.names()),
    "places": sorted(set(presets.names().values())),
    "strategy": presets.load("moa").strategy,
    "layers": len(presets.load("moa").params.layers),
    "services": len(services()),
}))
"""
"""What an installed copy must be able to do with the files that it ships."""


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Return what a command prints; a failure shows all that it said."""
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, into: Path) -> tuple[Path, Path]:
    """Return the wheel and the sdist that a source tree gives."""
    run(sys.executable, "-m", "hatchling", "build", "-d", into, cwd=source)
    (wheel,) = into.glob("*.whl")
    (sdist,) = into.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel and the sdist of the checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sdist's own folder, unpacked."""
    into = tmp_path_factory.mktemp("sdist")
    with tarfile.open(built[1]) as archive:
        archive.extractall(into, filter="data")
    (folder,) = into.iterdir()
    return folder


def inside(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def environment(folder: Path) -> Path:
    """Return the interpreter of a fresh environment in which the dependencies lie, but no moa-nb.

    The dependencies are those of the running environment, by a path file; its own path files, which an
    editable moa-nb would come from, are not read there. What is installed comes first on the path.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    scheme = sysconfig.get_preferred_scheme("prefix")
    places = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    site = Path(sysconfig.get_path("purelib", scheme, {"base": str(folder), "platbase": str(folder)}))
    (site / "dependencies.pth").write_text("".join(f"{place}\n" for place in sorted(places)), "utf-8")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(python: Path, *what: str | Path) -> None:
    """Install into an environment with nothing but what is at hand."""
    quiet = ("--no-deps", "--no-index", "--ignore-installed", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, "install", *quiet, *what, cwd=python.parent)


def used(python: Path, folder: Path) -> dict[str, object]:
    """Return what the program finds when an environment runs it in an empty folder.

    The installed copy is alone: ``-I`` keeps the working folder, ``PYTHONPATH`` and user packages out,
    and the environment variables are few.
    """
    folder.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    home = {name: str(folder) for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    found: dict[str, object] = json.loads(run(python, "-I", "-c", PROGRAM, cwd=folder, env={**kept, **home}))
    return found


def pipelines() -> list[str]:
    """Return the names of the pipelines that the checkout ships."""
    return sorted(file.stem for file in (ROOT / "templates/pipelines").glob("*.toml"))


def assert_works(found: dict[str, object], package: Path) -> None:
    """Assert that the copy in ``package`` was used, and that what it ships can be read."""
    assert Path(str(found["package"])).resolve() == (package / "__init__.py").resolve()
    assert found["version"] == moa_nb.__version__
    assert "[mark]\n1. one\n[mark]\n2. two\n[mark]" in re.sub(r"\n+", "\n", str(found["prompt"]))
    assert found["panel"] == "panels/panel.html.jinja"
    assert found["strategy"] == "layers"
    assert found["layers"] == 3
    assert found["places"] == ["built-in"]
    assert found["pipelines"] == pipelines()
    assert isinstance(found["services"], int)
    assert found["services"] > 0


def site_of(python: Path) -> Path:
    """Return where an environment's packages lie."""
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip())


def test_the_wheel_holds_the_package_and_its_templates(built: tuple[Path, Path]) -> None:
    """The wheel is every file of the package and every template, and nothing else but its metadata."""
    package = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "moa_nb").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    templates = {
        f"moa_nb/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "templates").rglob("*") if file.is_file()
    }
    held = {name for name in inside(built[0]) if ".dist-info/" not in name}
    assert held == package | templates
    assert {"moa_nb/py.typed", "moa_nb/services.toml", "moa_nb/templates/pipelines/moa.toml"} <= held
    assert not any(name.startswith(("tests", "examples")) or "/test_" in name for name in held)


def test_the_wheel_says_what_it_is_and_what_it_needs(built: tuple[Path, Path]) -> None:
    """The metadata hold the version, the licence's text, and each extra; nothing that only tests need is a dependency."""
    with zipfile.ZipFile(built[0]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "moa-nb"
    assert metadata["Version"] == moa_nb.__version__
    assert metadata["License-Expression"] == "MIT"
    assert name.replace("METADATA", "licenses/LICENSE") in inside(built[0])
    assert {"lab", "test"} <= {*metadata.get_all("Provides-Extra", [])}
    needed = {
        re.split(r"[<>=!~;\s\[]", line)[0].lower()
        for line in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    assert {"aiohttp", "ipywidgets", "jinja2", "pandas", "pydantic"} <= needed
    assert not needed & {"hatchling", "jupyterlab", "mypy", "playwright", "pytest", "ruff"}


def test_the_sdist_holds_what_it_takes_to_build_and_test(built: tuple[Path, Path], unpacked: Path) -> None:
    """The sdist has the sources, the templates, the tests and the licence, and no one's output."""
    for name in (
        "moa_nb/__init__.py",
        "templates/pipelines/moa.toml",
        "tests/test_packaging.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        assert (unpacked / name).is_file(), name
    with tarfile.open(built[1]) as archive:
        names = archive.getnames()
    output = re.compile(r"__pycache__|\.pyc$|_cache/|\.ipynb_checkpoints|\.egg-info|\.hypothesis/|/tests/output/")
    assert [name for name in names if output.search(name)] == []


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], unpacked: Path, tmp_path: Path) -> None:
    """The wheel built from the sdist holds the same files as the one built from the checkout."""
    assert inside(build(unpacked, tmp_path)[0]) == inside(built[0])


def test_an_installed_wheel_works_anywhere(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed from the wheel, it renders a prompt and loads a pipeline, away from any checkout."""
    python = environment(tmp_path / "environment")
    install(python, built[0])
    found = used(python, tmp_path / "elsewhere")
    package = site_of(python) / "moa_nb"
    assert_works(found, package)
    assert Path(str(found["templates"])).resolve() == (package / "templates").resolve()


def test_an_installed_sdist_works_anywhere(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed from the sdist, it renders a prompt and loads a pipeline, away from any checkout."""
    python = environment(tmp_path / "environment")
    install(python, built[1])
    assert_works(used(python, tmp_path / "elsewhere"), site_of(python) / "moa_nb")


def test_an_editable_install_follows_its_checkout(unpacked: Path, tmp_path: Path) -> None:
    """Installed as editable, it uses the checkout's package and templates, and sees a template that came later."""
    checkout = tmp_path / "checkout"
    shutil.copytree(unpacked, checkout)
    python = environment(tmp_path / "environment")
    install(python, "--editable", checkout)
    found = used(python, tmp_path / "elsewhere")
    assert_works(found, checkout / "moa_nb")
    assert Path(str(found["templates"])).resolve() == (checkout / "templates").resolve()

    shutil.copy(checkout / "templates/pipelines/moa.toml", checkout / "templates/pipelines/later.toml")
    assert used(python, tmp_path / "later")["pipelines"] == sorted([*pipelines(), "later"])
