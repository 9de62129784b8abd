"""What each event loop has for itself: its connections, and a gateway for the settings that hold."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from moa_nb.gateway import Gateway, Http
from moa_nb.settings import Settings
from moa_nb.store import Store

__all__ = ["Connections"]

_T = TypeVar("_T")


class _Place:
    """What one event loop has: its connections, and a gateway for the settings that hold."""

    def __init__(self) -> None:
        self._connections: dict[Path | None, Http] = {}
        """By the file of certificates that they trust."""
        self.gateway: Gateway | None = None
        """That of the latest settings."""
        self.gateways: weakref.WeakValueDictionary[int, Gateway] = weakref.WeakValueDictionary()
        """That one, and those of runs that began under earlier settings and go on."""

    def http(self, ca_file: Path | None) -> Http:
        """Return the connections that trust these certificates besides the system's."""
        if ca_file not in self._connections:
            self._connections[ca_file] = Http(ca_file)
        return self._connections[ca_file]

    async def close(self) -> None:
        """Return once all connections are closed."""
        for http in self._connections.values():
            await http.close()


class Connections:
    """The gateways of the engine's own loop and of those that runs visit."""

    def __init__(self) -> None:
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Place] = weakref.WeakKeyDictionary()
        self._visits: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, int] = weakref.WeakKeyDictionary()
        """Runs that go on on loops other than the engine's own."""

    def gateway(self, settings: Settings, store: Callable[[Settings], Store]) -> Gateway:
        """Return the gateway of the running loop.

        Args:
            settings: under which it asks.
            store: gives the store that they ask for, where the gateway is new.
        """
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:
            place = self._places[loop] = _Place()
        known = place.gateways.get(id(settings))
        if known is None:
            # It lives as long as these settings hold or a plan made under them does.
            known = place.gateways[id(settings)] = Gateway(settings, store(settings), place.http(settings.ca_file))
            place.gateway = known
        return known

    async def visit(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Return the coroutine's result; on a loop that is somebody else's nothing is left open behind it."""
        loop = asyncio.get_running_loop()
        self._visits[loop] = self._visits.get(loop, 0) + 1
        try:
            return await coroutine
        finally:
            self._visits[loop] -= 1
            if not self._visits[loop]:
                await self.close()

    async def close(self) -> None:
        """Return once the connections of the running loop are closed."""
        place = self._places.pop(asyncio.get_running_loop(), None)
        if place is not None:
            await place.close()
