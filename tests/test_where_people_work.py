"""Where people work: company certificates, proxies, keys in files and in Colab, drives over the network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pandas as pd
import pytest
import trustme
import truststore

import moa_nb as moa
from moa_nb import settings
from moa_nb.chat import Completion, Message, Request
from moa_nb.engine.loop import _new_event_loop
from moa_nb.errors import KeyRejected, MoaError, SettingsError, SetupError
from moa_nb.gateway import Gateway, Http
from moa_nb.settings import current, explain, folders, keys, network, services_with_keys
from moa_nb.store import Store
from moa_nb.testing import ChatServer, Clock

KEY = "sk-secret-0123456789"
PASSWORD = "p@ss/word#1"

# What stands between a laptop and a service ------------------------------------------------------


class Relay:
    """A server on loopback that passes bytes on, in a thread of its own."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._meetings: set[asyncio.Task[Any] | None] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        meetings = [task for task in self._meetings if task is not None]
        for task in meetings:
            task.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)
        for _ in range(4):
            await asyncio.sleep(0)  # turns of the loop, in which it closes what was aborted

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._meetings.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if self._tls:
                    await writer.start_tls(self._tls)
                await self.meet(reader, writer)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.drain()
        finally:
            writer.transport.abort()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Return once a connection is over."""
        raise NotImplementedError

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, head: bytes) -> None:
        """Return once a connection to a port of this machine is over."""
        from_there, there = await asyncio.open_connection("127.0.0.1", port)
        try:
            there.write(head)
            await asyncio.gather(pipe(reader, there), pipe(from_there, writer))
        finally:
            there.transport.abort()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Return once one side has said all."""
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Front(Relay):
    """What a company puts before a service: TLS with a certificate of its own authority."""

    def __init__(self, server: ChatServer, authority: trustme.CA, *names: str) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(tls)
        super().__init__(tls=tls)
        self._behind = server.port

    @property
    def base_url(self) -> str:
        """Its address."""
        return f"https://127.0.0.1:{self.port}/v1"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Return once a connection is over."""
        await self.join(reader, writer, self._behind, b"")


class ForwardProxy(Relay):
    """A proxy that alone knows where the hosts are: CONNECT for https, whole addresses for http."""

    def __init__(self, hosts: dict[str, int], login: str | None = None) -> None:
        super().__init__()
        self._hosts = hosts
        self._expected = login and f"Basic {base64.b64encode(login.encode()).decode()}"
        self.asked: list[tuple[str, str]] = []
        """Method and target of each request that came."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Return once a connection is over."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, version = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.asked.append((method, target))
        if self._expected and headers.get("proxy-authorization") != self._expected:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        parts = urlsplit(target if "://" in target else f"//{target}")
        port = self._hosts.get(parts.hostname or "")
        if port is None:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self.join(reader, writer, port, b"")
        else:
            kept = [line for line in lines if not line.lower().startswith("proxy-")]
            await self.join(
                reader, writer, port, "\r\n".join([f"{method} {parts.path} {version}", *kept, "", ""]).encode()
            )


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no certificates of the machine that the tests run on."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}:
            monkeypatch.delenv(name)


@pytest.fixture
def authority() -> trustme.CA:
    """An authority that no system knows."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate, as IT hands it out."""
    file = tmp_path / "company.pem"
    file.write_text(f"# Würzburg\n{authority.cert_pem.bytes().decode()}", "utf-8")
    return file


def lab(base_url: str, **values: Any) -> None:
    """One model at an address."""
    moa.configure(
        proposers=["lab:a"],
        aggregator="lab:a",
        pipeline="single",
        retry_seconds=0,
        providers={"lab": {"base_url": base_url}},
        **values,
    )


def ask(loop_factory: Callable[[], asyncio.AbstractEventLoop] = _new_event_loop) -> Completion:
    """Ask once under the settings that hold, on a loop as the engine has it."""

    async def once() -> Completion:
        connections = Http(current().ca_file)
        try:
            return await Gateway(current(), Store(None), connections).complete(
                Request("lab:a", (Message("user", "Why?"),))
            )
        finally:
            await connections.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(once())


def refused(ask: Callable[[], object] = ask) -> str:
    """What is said, which is one line and a matter of setup."""
    with pytest.raises(SetupError) as raised:
        ask()
    assert "\n" not in str(raised.value)
    whole = "".join(traceback.format_exception(raised.value))
    assert PASSWORD not in whole
    assert "p%40ss" not in whole
    return str(raised.value)


# Certificates -------------------------------------------------------------------------------------


def test_an_unknown_authority_is_said_before_a_second_row(server: ChatServer, authority: trustme.CA) -> None:
    """One line that names ``ca_file``; not one row was read by anybody."""
    with Front(server, authority, "127.0.0.1") as front:
        lab(front.base_url)
        frame = pd.DataFrame({"text": [f"row {n}" for n in range(20)]})
        said = refused(lambda: frame.moa.synthesize("text", progress=False))
    assert "set ca_file in moa.toml" in said
    assert server.count() == 0


def test_a_ca_file_is_trusted_beside_the_systems_own(server: ChatServer, authority: trustme.CA, ca_file: Path) -> None:
    """What failed without it works with it, a byte order of comments in it notwithstanding."""
    with Front(server, authority, "127.0.0.1") as front:
        lab(front.base_url)
        refused()
        moa.configure(ca_file=str(ca_file))
        assert ask().text == "answer of a"
    context = network.tls_context(ca_file)
    assert context.cert_store_stats()["x509_ca"] >= network.tls_context().cert_store_stats()["x509_ca"] + 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("loop_factory", [_new_event_loop, asyncio.new_event_loop])
def test_on_windows_and_macos_the_system_is_asked(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    server: ChatServer,
    authority: trustme.CA,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same as elsewhere, as far as it can be seen here: refused without the file, taken with it."""
    monkeypatch.setattr(network, "sys", types.SimpleNamespace(platform="win32"))
    network._context.cache_clear()
    try:
        assert isinstance(network.tls_context(), truststore.SSLContext)
        with Front(server, authority, "127.0.0.1") as front:
            lab(front.base_url)
            assert "set ca_file in moa.toml" in refused(lambda: ask(loop_factory))
            moa.configure(ca_file=ca_file)
            assert ask(loop_factory).text == "answer of a"
    finally:
        network._context.cache_clear()


def test_a_ca_file_as_windows_exports_it(server: ChatServer, authority: trustme.CA, tmp_path: Path) -> None:
    """In DER, named relative to the file that names it."""
    Path("certificates").mkdir()
    Path("certificates/company.cer").write_bytes(ssl.PEM_cert_to_DER_cert(authority.cert_pem.bytes().decode()))
    Path("moa.toml").write_text("ca_file = 'certificates/company.cer'", "utf-8")
    with Front(server, authority, "127.0.0.1") as front:
        lab(front.base_url)
        assert ask().text == "answer of a"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_machines_own_variables_count(
    name: str, server: ChatServer, authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As companies set them; the settings say which one, and a ``ca_file`` of the user's own wins."""
    monkeypatch.setenv(name, str(ca_file))
    assert ("ca_file", ca_file, f"environment ({name})") in explain()
    with Front(server, authority, "127.0.0.1") as front:
        lab(front.base_url)
        assert ask().text == "answer of a"
    Path("other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    Path("moa.toml").write_text("ca_file = 'other.pem'", "utf-8")
    assert current().ca_file == Path.cwd() / "other.pem"


def test_a_variable_that_names_no_file_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leftover of another program is no mistake of this one's user."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/cert.pem")
    assert current().ca_file is None


def test_a_certificate_that_is_wrong_itself_needs_no_ca_file(
    server: ChatServer, authority: trustme.CA, ca_file: Path
) -> None:
    """For another host it is refused with what is wrong, and ``ca_file`` is no way out."""
    with Front(server, authority, "elsewhere.test") as front:
        lab(front.base_url, ca_file=ca_file)
        said = refused()
    assert "127.0.0.1" in said
    assert "not valid for" in said
    assert "ca_file" not in said


def test_https_where_http_is_spoken(server: ChatServer) -> None:
    """The address is to be mended, not the certificates."""
    lab(server.base_url.replace("http:", "https:"))
    assert "does not speak TLS; mend base_url" in refused()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda file: file.write_text("no certificate"), "holds no certificate"),
        (lambda file: file.write_bytes(b"\x30\x03\x02\x01\x01"), "holds no certificate"),
        (
            lambda file: file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "holds no cert",
        ),
        (lambda file: file.mkdir(), "cannot be read"),
        (lambda file: None, "cannot be read"),
    ],
)
def test_a_ca_file_without_certificates(make: Callable[[Path], object], words: str) -> None:
    """Said where it is named, with its source and path."""
    make(Path("company.pem"))
    Path("moa.toml").write_text("ca_file = 'company.pem'", "utf-8")
    with pytest.raises(SettingsError) as raised:
        current()
    assert words in str(raised.value)
    assert str(raised.value).startswith(f"{Path.cwd() / 'moa.toml'}: ca_file: {Path.cwd() / 'company.pem'}")
    assert "\n" not in str(raised.value)


# Proxies ------------------------------------------------------------------------------------------


def test_http_goes_through_the_proxy(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which alone knows the host; the request names its whole address."""
    with ForwardProxy({"service.test": server.port}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        lab("http://service.test/v1")
        assert moa.run("Why?").text == "answer of a"
    assert set(proxy.asked) == {("POST", "http://service.test/v1/chat/completions")}


@pytest.mark.parametrize("loop_factory", [_new_event_loop, asyncio.new_event_loop])
def test_https_goes_through_a_tunnel(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    server: ChatServer,
    authority: trustme.CA,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy learns the host and nothing else; the certificate is the service's."""
    with Front(server, authority, "service.test") as front, ForwardProxy({"service.test": front.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removeprefix("http://"))
        lab("https://service.test/v1", ca_file=ca_file)
        assert ask(loop_factory).text == "answer of a"
    assert proxy.asked == [("CONNECT", "service.test:443")]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxys_password_is_sent_and_never_shown(
    scheme: str, server: ChatServer, authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right one it works; a wrong one, or none, is a matter of setup."""
    with (
        Front(server, authority, "service.test") as front,
        ForwardProxy(
            {"service.test": server.port if scheme == "http" else front.port}, login=f"ann:{PASSWORD}"
        ) as proxy,
    ):
        lab(f"{scheme}://service.test/v1", ca_file=ca_file)
        for login in ("", "ann:p%40ss%2Fwrong@"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", f"//{login}"))
            assert "wants a user name and a password" in refused()
        monkeypatch.setenv(f"{scheme}_proxy", proxy.url.replace("//", "//ann:p%40ss%2Fword%231@"))
        assert ask().text == "answer of a"
        assert "Proxy-Authorization" not in server.requests[0].headers
        lab(f"{scheme}://elsewhere.test/v1")
        said = refused() if scheme == "https" else ""
        assert not said or "does not let it through (403)" in said


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_answer_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the service, and without its password."""
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", "http://ann:p%40ss%2Fword%231@127.0.0.1:9")
    lab(f"{scheme}://service.test/v1")
    assert f"the proxy 127.0.0.1:9 for {scheme}://service.test does not answer" in refused()


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://127.0.0.1:1080", "of a kind that cannot be used (socks5)"),
        (f"http://ann:{PASSWORD}@proxy.test:3128", "cannot be read"),
        ("http://", "cannot be read"),
        ("http://proxy.test:port", "cannot be read"),
    ],
)
def test_a_proxy_that_cannot_be_used(proxy: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is said with what to do, in every layer."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    lab("https://service.test/v1")
    said = refused()
    assert words in said
    assert "set HTTPS_PROXY, or add the host to NO_PROXY" in said


@pytest.mark.parametrize(
    ("exceptions", "url", "goes_through"),
    [
        (None, "http://service.test/v1", True),
        (None, "http://127.0.0.1:11434/v1", False),
        (None, "http://[::1]:8000/v1", False),
        (None, "http://localhost:1234/v1", False),
        ("service.test", "http://service.test/v1", False),
        (".test", "https://deep.service.test/v1", False),
        ("service.test:8443", "https://service.test:8443/v1", False),
        ("service.test:8443", "https://service.test/v1", True),
        ("10.0.0.0/8, 192.168.1.7", "http://10.1.2.3:8000/v1", False),
        ("10.0.0.0/8, 192.168.1.7", "http://192.168.1.7/v1", False),
        ("10.0.0.0/8", "http://11.0.0.1/v1", True),
        ("fd00::/8", "http://[fd00::7]/v1", False),
        ("other.test", "http://127.0.0.1:8000/v1", True),
        ("*", "https://service.test/v1", False),
    ],
)
def test_no_proxy_is_respected(
    exceptions: str | None, url: str, goes_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, domains, ports, addresses and networks; where it is not set, this machine needs no proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    if exceptions is not None:
        monkeypatch.setenv("NO_PROXY", exceptions)
    assert network.proxy_for(url) == ("http://proxy.test:3128" if goes_through else None)


def test_a_server_on_this_machine_is_asked_past_the_proxy(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real connections, with a proxy that nobody listens on."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    lab(server.base_url)
    assert moa.run("Why?").text == "answer of a"


def test_a_password_of_another_program_goes_nowhere(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``.netrc`` holds for a host is not sent to a service that needs no key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine service.test login ann password secret", "utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with ForwardProxy({"service.test": server.port}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        lab("http://service.test/v1")
        ask()
    assert "Authorization" not in server.requests[0].headers


# Keys in a file -----------------------------------------------------------------------------------


@pytest.fixture
def in_lab() -> Callable[[], str | None]:
    """A provider whose key is in LAB_KEY."""
    moa.configure(providers={"lab": {"base_url": "http://x", "key_env": "LAB_KEY"}})
    return lambda: current().provider("lab:a").key()


def where_key(provider: str = "lab") -> tuple[Any, str]:
    """What the settings say of a provider's key."""
    return next((value, source) for name, value, source in explain() if name == f"providers.{provider}.key")


def test_a_key_is_read_from_the_file_when_it_is_asked_for(in_lab: Callable[[], str | None]) -> None:
    """Only with ``env_file``; it stays out of the environment, of every repr and every listing."""
    Path(".env").write_text(f'# mine\nexport LAB_KEY="{KEY}"\nOPENAI_API_KEY={KEY}\n', "utf-8")
    with pytest.raises(KeyRejected, match="LAB_KEY"):
        in_lab()
    assert where_key() == ("(not set)", "nowhere (LAB_KEY)")
    moa.configure(env_file=".env")
    before = dict(os.environ)
    assert in_lab() == KEY
    assert dict(os.environ) == before
    assert where_key() == ("(set)", f"{Path.cwd() / '.env'} (LAB_KEY)")
    assert where_key("openai") == ("(set)", f"{Path.cwd() / '.env'} (OPENAI_API_KEY)")
    assert [service.name for service in services_with_keys()] == ["openai"]
    assert KEY not in repr(current()) + str(explain()) + repr(current().provider("lab:a"))


def test_the_environment_wins_over_the_file(in_lab: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is empty is none."""
    Path(".env").write_text(f"LAB_KEY={KEY}", "utf-8")
    moa.configure(env_file=".env")
    monkeypatch.setenv("LAB_KEY", "  ")
    assert in_lab() == KEY
    monkeypatch.setenv("LAB_KEY", "another")
    assert in_lab() == "another"
    assert where_key() == ("(set)", "environment (LAB_KEY)")


def test_a_changed_file_is_read_again(in_lab: Callable[[], str | None]) -> None:
    """So that writing the key down is enough; a file that is not there yet is said."""
    moa.configure(env_file=".env")
    with pytest.raises(KeyRejected, match=r"or write LAB_KEY=… into .*\.env, a file that is not there"):
        in_lab()
    Path(".env").write_bytes(b"\xef\xbb\xbfLAB_KEY=first\r\n")
    assert in_lab() == "first"
    Path(".env").write_text("LAB_KEY=the second\n", "utf-8")
    assert in_lab() == "the second"


def test_the_file_lies_beside_the_settings_that_name_it(
    in_lab: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder below as well; ``configure`` and the environment mean the folder that they are said in."""
    Path("moa.toml").write_text("env_file = '.env'", "utf-8")
    Path(".env").write_text("LAB_KEY=of the project", "utf-8")
    Path("below").mkdir()
    Path("below/.env").write_text("LAB_KEY=of below", "utf-8")
    monkeypatch.chdir("below")
    assert in_lab() == "of the project"
    moa.configure(env_file=".env")
    monkeypatch.chdir("..")
    assert in_lab() == "of below"


def test_a_file_that_is_no_text_is_said(in_lab: Callable[[], str | None]) -> None:
    """And a folder in its place; neither repeats what it holds."""
    Path(".env").write_bytes(b"LAB_KEY=\xff\xfe" + KEY.encode())
    moa.configure(env_file=".env")
    with pytest.raises(SettingsError, match="is no text in UTF-8") as raised:
        in_lab()
    assert KEY not in str(raised.value)
    with pytest.raises(SettingsError, match=r"is a folder; it takes the path of a file, such as \.env"):
        moa.configure(env_file="..")


# Keys in Colab ------------------------------------------------------------------------------------


class Colab:
    """What Colab's own module does, as far as it can be asked here."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.asked: list[str] = []

    class NotebookAccessError(Exception):
        """As Colab raises it."""

    class SecretNotFoundError(Exception):
        """As Colab raises it."""

    class TimeoutException(Exception):
        """As Colab raises it."""

    def get(self, name: str) -> str:
        """Return a secret."""
        self.asked.append(name)
        if name in self.forbidden:
            raise self.NotebookAccessError(name)
        if name not in self.secrets:
            raise self.SecretNotFoundError(name)
        return self.secrets[name]


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Colab]:
    """A notebook in Colab."""
    userdata = Colab()
    module: Any = types.ModuleType("google.colab")
    module.userdata = userdata
    for name, value in (("google", types.ModuleType("google")), ("google.colab", module)):
        monkeypatch.setitem(sys.modules, name, value)
    keys._colab_secret.cache_clear()
    yield userdata
    keys._colab_secret.cache_clear()


def test_colabs_secrets_are_asked_when_that_is_wanted(
    in_lab: Callable[[], str | None], colab: Colab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a key that is nowhere else, and once."""
    colab.secrets["LAB_KEY"] = KEY
    with pytest.raises(KeyRejected):
        in_lab()
    assert colab.asked == []
    moa.configure(colab_secrets=True)
    assert in_lab() == in_lab() == KEY
    assert colab.asked == ["LAB_KEY"]
    assert where_key() == ("(set)", "Colab's secrets (LAB_KEY)")
    assert KEY not in str(explain())
    monkeypatch.setenv("LAB_KEY", "the environment's")
    assert in_lab() == "the environment's"


def test_a_secret_that_colab_keeps_back_is_one_line(in_lab: Callable[[], str | None], colab: Colab) -> None:
    """Absent, forbidden, or broken on the way: each with what to do; then it is asked again."""
    moa.configure(colab_secrets=True)
    with pytest.raises(KeyRejected, match="set the environment variable LAB_KEY, or add LAB_KEY to Colab's secrets"):
        in_lab()
    colab.forbidden.add("LAB_KEY")
    with pytest.raises(KeyRejected, match="give this notebook access to LAB_KEY under Colab's secrets"):
        in_lab()
    colab.forbidden.clear()
    colab.get, get = lambda name: (_ for _ in ()).throw(Colab.TimeoutException()), colab.get  # type: ignore[method-assign]
    with pytest.raises(KeyRejected, match=r"cannot be read \(TimeoutException\): set the environment variable LAB_KEY"):
        in_lab()
    colab.get = get  # type: ignore[method-assign]
    colab.secrets["LAB_KEY"] = KEY
    assert in_lab() == KEY


def test_outside_colab_the_same_settings_serve(in_lab: Callable[[], str | None]) -> None:
    """``colab_secrets`` finds nothing there, and is no mistake."""
    keys._colab_secret.cache_clear()
    moa.configure(colab_secrets=True)
    with pytest.raises(KeyRejected, match="set the environment variable LAB_KEY"):
        in_lab()


def test_a_default_service_is_found_by_a_secret(colab: Colab) -> None:
    """Its key counts as one in the environment does, and what is absent is not asked for with each run."""
    colab.secrets["GROQ_API_KEY"] = KEY
    moa.configure(colab_secrets=True)
    assert [service.name for service in services_with_keys()] == ["groq"]
    asked = len(colab.asked)
    assert [service.name for service in services_with_keys()] == ["groq"]
    assert len(colab.asked) == asked


# Keys that expire ---------------------------------------------------------------------------------


def test_a_key_from_a_function_is_fresh(server: ChatServer) -> None:
    """One that has expired since the last call is not sent again."""
    fresh = (f"token-{n}" for n in range(9))
    moa.configure(providers={"lab": {"base_url": server.base_url, "key": lambda: next(fresh)}})
    clock = Clock()

    async def twice() -> None:
        connections = Http()
        gateway = Gateway(current(), Store(None), connections, clock=clock.time)
        try:
            for question in ("One?", "Two?"):
                await gateway.complete(Request("lab:a", (Message("user", question),)))
                clock.advance(60.0)
        finally:
            await connections.close()

    asyncio.run(twice())
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer token-0", "Bearer token-1"]


# Homes on drives over the network -----------------------------------------------------------------


@pytest.mark.parametrize("has_links", [True, False])
def test_kernels_that_start_together_agree_on_one_secret(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On drives without hard links too, as many in companies are."""

    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
        monkeypatch.setattr(folders, "_LOOKS", 6000)  # who has begun to write may stand still: the others wait for it
    for n in range(20):
        home = tmp_path / f"home{n}"
        together = threading.Barrier(4)

        def one(home: Path = home, together: threading.Barrier = together) -> bytes:
            together.wait()
            return folders._secret_in.__wrapped__(home)

        with ThreadPoolExecutor(4) as pool:
            found = {job.result() for job in [pool.submit(one) for _ in range(4)]}
        assert len(found) == 1
        assert len(found.pop()) == 32
        assert [file.name for file in home.iterdir()] == ["fence.key"]
        assert (home / "fence.key").stat().st_mode & 0o077 == 0


def test_a_secret_that_nobody_finished_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    """A process that died between two steps leaves an empty file; this process has a secret all the same."""
    (tmp_path / "fence.key").touch()
    assert len(folders._secret_in.__wrapped__(tmp_path)) == 32


# Windows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['env_file = "C:\\Users\\ann\\.env"', 'ca_file = "D:\\company.pem"'])
def test_a_windows_path_in_double_quotes_is_explained(text: str) -> None:
    """TOML takes its backslashes for escapes; the error says how to write it."""
    Path("moa.toml").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match="write a path with backslashes in single quotes") as raised:
        current()
    assert "\n" not in str(raised.value)


def test_a_home_below_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``~`` in paths is the user's folder, wherever a path is taken."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("MOA_NB_HOME", "~/moa")
    moa.configure(env_file="~/keys/.env")
    assert settings.data_folder() == tmp_path / "moa"
    assert current().env_file == tmp_path / "keys" / ".env"
    monkeypatch.setenv("MOA_NB_HOME", "~nobody-of-this-name/moa")
    with pytest.raises(SettingsError, match="MOA_NB_HOME is ~nobody-of-this-name/moa, and nobody"):
        settings.data_folder()
    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path))


def test_errors_are_errors_of_this_package() -> None:
    """Whatever stands between, who catches ``MoaError`` has caught it."""
    assert issubclass(SettingsError, MoaError)
