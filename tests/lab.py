"""JupyterLab on loopback and headless Chromium, for tests that must see what a reader sees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import nbformat
import psutil
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

OUTPUT = Path(__file__).parent / "output"
"""Where screenshots are saved; not kept in the repository."""

_FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}
_REQUIRED = os.environ.get("TESTS_REQUIRE_BROWSER") == "1"
_CHROMIUM = os.environ.get("TESTS_CHROMIUM")
_SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


def chromium() -> str:
    """Return the path of Chromium; skip the test where it is missing, or fail it if a browser is required."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return _missing("playwright is not installed")
    path = _CHROMIUM or shutil.which("chromium") or shutil.which("chromium-browser")
    path = path or shutil.which("google-chrome")
    return path or _missing("no Chromium is installed")


def _missing(why: str) -> str:
    if _REQUIRED:
        pytest.fail(f"{why}, and TESTS_REQUIRE_BROWSER is 1")
    pytest.skip(f"{why}; TESTS_REQUIRE_BROWSER=1 makes this a failure")


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a headless Chromium."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        started = playwright.chromium.launch(executable_path=path, headless=True, args=arguments)
        try:
            yield started
        finally:
            started.close()


class Lab:
    """A JupyterLab server of its own: its folders, its settings, a token, a port on loopback."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.root = folder / "root"
        self.runtime = folder / _FOLDERS["JUPYTER_RUNTIME_DIR"]
        """Where the connection files of its kernels are."""
        self.address = ""
        self._token = secrets.token_hex(16)
        self._folder = folder
        self.root.mkdir(parents=True)
        places = {variable: folder / name for variable, name in _FOLDERS.items()}
        for place in places.values():
            place.mkdir()
        for name, values in _SETTINGS.items():
            self.set(name, values)
        environment = {**environment, **{variable: str(place) for variable, place in places.items()}}
        # A port that is free may be somebody else's by the time the server wants it.
        if not any(self._starts(environment) for _ in range(3)):
            pytest.fail(f"JupyterLab did not start: {(folder / 'server.log').read_text()[-2000:]}")

    def _starts(self, environment: dict[str, str]) -> bool:
        """Return whether the server answers, on a port that is free now."""
        port = _free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._log = (self._folder / "server.log").open("wb")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        options = [
            f"--port={port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self._token}",
            f"--ServerApp.root_dir={self.root}",
            # As in ``real_kernels``: kernels have no ports that somebody else could take.
            *([] if sys.platform == "win32" else ["--KernelManager.transport=ipc"]),
        ]
        self._process = subprocess.Popen(
            [*command, *options],
            env=environment,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                return False
            time.sleep(0.1)
        return True

    def set(self, name: str, values: dict[str, Any]) -> None:
        """Set a plugin's settings, for pages that are opened from now on."""
        file = self._folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def _answers(self) -> bool:
        try:
            self.api("status")
        except (URLError, ConnectionError, TimeoutError):
            return False
        return True

    def api(self, path: str, method: str = "GET") -> Any:
        """Return what the server's own interface answers."""
        request = Request(
            f"{self.address}/api/{path}", method=method, headers={"Authorization": f"token {self._token}"}
        )
        end = time.monotonic() + 60
        while True:
            try:
                with urlopen(request, timeout=60) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except HTTPError as error:
                error.close()
                # The server fails while a kernel is just coming or going; a moment later it does not.
                if error.code < 500 or time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def write(self, name: str, notebook: nbformat.NotebookNode) -> None:
        """Put a notebook into the server's folder."""
        nbformat.write(notebook, self.root / name)

    def read(self, name: str) -> nbformat.NotebookNode:
        """Return a notebook as it was saved."""
        return nbformat.read(self.root / name, as_version=4)

    def url(self, name: str, under: str = "doc/tree") -> str:
        """Return the address that opens a notebook: alone in Lab, or ``under`` another of the server's front ends."""
        return f"{self.address}/{under}/{name}?token={self._token}"

    def offer_kernel(self, name: str, spec: dict[str, Any]) -> None:
        """Put a kernel beside those that the server finds by itself."""
        folder = self._folder / _FOLDERS["JUPYTER_DATA_DIR"] / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps(spec))

    def show_widgets(self, shown: bool) -> None:
        """Say whether pages of Lab that are opened from now on can show widgets."""
        file = self._folder / _FOLDERS["JUPYTER_CONFIG_DIR"] / "labconfig" / "page_config.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"disabledExtensions": {"@jupyter-widgets/jupyterlab-manager": not shown}}))

    def kernels_of(self, name: str) -> list[dict[str, Any]]:
        """Return the kernels of a notebook; a page that was closed may have left others behind."""
        return [session["kernel"] for session in self.api("sessions") if session["path"] == name]

    def end_kernels(self) -> None:
        """End all sessions and kernels."""
        for kind in ("sessions", "kernels"):
            for one in self.api(kind):
                with contextlib.suppress(HTTPError):  # it has ended by itself
                    self.api(f"{kind}/{one['id']}", "DELETE")

    def stop(self) -> None:
        """End the server and the processes that it started."""
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
            children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for child in psutil.wait_procs(children, timeout=3)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._log.close()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


class Reader:
    """One page, and everything on it that a reader must be protected from."""

    def __init__(self, browser: Browser, lab: Lab | None, *, scheme: str = "light") -> None:
        self._context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(60_000)
        self._lab = lab
        self._name = ""
        """Of the notebook that is open."""
        self.outside: list[str] = []
        """The addresses beyond this machine's own server that the page asked for; none is reached."""
        self.dialogs: list[str] = []
        self.page.route("**/*", self._judge)
        self.page.on("dialog", self._dismiss)
        self._context.on("page", lambda page: None if page is self.page else self.outside.append(f"opened {page.url}"))

    def _judge(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(("data:", "blob:", "file:")) or (self._lab and url.startswith(self._lab.address)):
            route.continue_()
        else:
            self.outside.append(url)
            route.abort()

    def _dismiss(self, dialog: Any) -> None:
        if dialog.type == "beforeunload":
            dialog.accept()
        else:
            self.dialogs.append(dialog.message)
            dialog.dismiss()

    def close(self) -> None:
        """Close the page."""
        self._context.close()

    def open(self, name: str) -> None:
        """Open a notebook in Lab, and wait for its cells, its trust and its kernel."""
        assert self._lab is not None
        self._name = name
        self.page.goto(self._lab.url(name))
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")

    def wait_for_kernel(self) -> None:
        """Return when the notebook's kernel is idle."""
        lab, name = self._lab, self._name
        assert lab is not None
        self.until(lambda: "idle" in [kernel["execution_state"] for kernel in lab.kernels_of(name)], 180)
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", state="attached")

    def menu(self, bar: str, command: str) -> None:
        """Choose an entry of the menu bar by its command."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{bar}$")).click()
        self.page.locator(f"li.lm-Menu-item[data-command='{command}']").first.click()

    def run_all(self) -> None:
        """Run all cells through the menu, and return as soon as they wait for their turn."""
        self.menu("Run", "runmenu:run-all")
        self.until(lambda: re.search(r"\[[*\d]", " ".join(self.page.locator(".jp-InputPrompt").all_inner_texts())))

    def interrupt(self) -> None:
        """Interrupt the kernel through the menu."""
        self.menu("Kernel", "kernelmenu:interrupt")

    def save(self) -> None:
        """Save the notebook through the keyboard, and wait until it is written."""
        self.until(self._saves)

    def _saves(self) -> bool:
        """Return whether Ctrl+S saves; while the save before goes on, JupyterLab takes no other and says nothing."""
        from playwright.sync_api import TimeoutError as NothingCame

        try:
            with self.page.expect_response(
                lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url, timeout=15_000
            ):
                self.page.keyboard.press("Control+s")
        except NothingCame:
            return False
        return True

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        """Return when the condition holds; the page goes on meanwhile."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"it did not come to hold; the page says: {self.text[-1500:]}"
            self.page.wait_for_timeout(40)

    def until_done(self, seconds: float = 180) -> None:
        """Return when no cell runs any more."""
        self.until(lambda: "[*]" not in " ".join(self.page.locator(".jp-InputPrompt").all_inner_texts()), seconds)
        self.page.wait_for_timeout(300)

    @property
    def text(self) -> str:
        """All text on the page that is shown."""
        return self.page.inner_text("body")

    def outputs(self, cell: int) -> Locator:
        """Return the outputs of the code cell with this number, from 0."""
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")

    def set_by_script(self) -> Any:
        """Return what ``window.__xss`` is in any frame; ``None`` when no script set it."""
        look = "() => window.__xss === undefined ? null : window.__xss"
        found = [frame.evaluate(look) for frame in self.page.frames]
        return next((value for value in found if value is not None), None)

    def shot(self, name: str, *, whole: bool = False) -> Path:
        """Return the path of a screenshot; ``whole`` makes the window as high as the notebook."""
        file = OUTPUT / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if whole and self._lab is not None:
            height = self.page.evaluate(
                "() => { const s = document.querySelector('.jp-WindowedPanel-outer');"
                " return s ? s.scrollHeight + window.innerHeight - s.clientHeight : document.documentElement.scrollHeight }"
            )
            self.page.set_viewport_size({"width": 1280, "height": max(900, min(int(height) + 20, 5000))})
            self.page.wait_for_timeout(200)
        self.page.screenshot(path=file, full_page=self._lab is None)
        return file
