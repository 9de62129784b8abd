"""Python values as JSON data and back, each of the type it was; no pickle, which could run anything when it is read.

What JSON has itself stands as it is. Anything else is an object of one key, the tag that says what it is.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import math
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from moa_nb.plain import quoted

__all__ = ["kinds_as_text", "pack_value", "pack_zone", "unpack_value", "unpack_zone"]

_PLAIN = frozenset({type(None), bool, str})

_LARGEST = 2**63


class _NotExact(Exception):
    """It would not come back as it is."""


def pack_value(value: Any) -> Any:
    """Return a value as JSON data; one of a type that is not known here as its text (see ``kinds_as_text``).

    >>> pack_value((1, "x", Decimal("0.10")))
    {'tuple': [1, 'x', {'decimal': '0.10'}]}
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return value if -_LARGEST <= value < _LARGEST else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    try:
        return _tagged(value, kind)
    except _NotExact:
        return {"text": [_text(value), f"{kind.__module__}.{kind.__qualname__}"]}


def unpack_value(data: Any) -> Any:
    """Return the value that ``pack_value`` was given, or the text that stands for it.

    Raises:
        ValueError: it is nothing that ``pack_value`` makes.

    >>> unpack_value(pack_value({"at": dt.timedelta(seconds=1)}))
    {'at': datetime.timedelta(seconds=1)}
    """
    if not isinstance(data, dict):
        return data
    try:
        ((tag, value),) = data.items()
        return _readers()[tag](value)
    except (KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        msg = f"not a value: {quoted(data)}"
        raise ValueError(msg) from error


def kinds_as_text(data: Any) -> list[str]:
    """Return the types of what comes back as its text alone, wherever it stands in packed data.

    >>> kinds_as_text([pack_value(1), pack_value(print)])
    ['builtins.builtin_function_or_method']
    """
    return sorted(set(_as_text(data)))


def _as_text(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        if data.keys() == {"text"}:
            yield str(data["text"][1])
            return
        data = list(data.values())
    if isinstance(data, list):
        for one in data:
            yield from _as_text(one)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # anybody's code
        return f"<{type(value).__qualname__}: {type(error).__name__}>"


# Time zones -------------------------------------------------------------------------------------


def pack_zone(zone: dt.tzinfo | None) -> Any:
    """Return a time zone as JSON data: its name, or the seconds of a fixed one.

    Raises:
        ValueError: it is of a kind that is not known here.

    >>> pack_zone(zoneinfo.ZoneInfo("Europe/Berlin")), pack_zone(dt.timezone.utc)
    (['zone', 'Europe/Berlin'], ['fixed', 0.0])
    """
    if zone is None:
        return None
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return ["zone", zone.key]
    if type(zone) is dt.timezone and repr(zone) in {repr(dt.timezone(zone.utcoffset(None))), repr(dt.UTC)}:
        return ["fixed", zone.utcoffset(None).total_seconds()]
    name = getattr(zone, "zone", None)
    if type(zone).__module__.partition(".")[0] == "pytz" and isinstance(name, str):
        return ["pytz", name]
    msg = f"a time zone of the type {type(zone).__qualname__}"
    raise ValueError(msg)


def unpack_zone(data: Any) -> dt.tzinfo | None:
    """Return the time zone that ``pack_zone`` was given.

    Raises:
        ValueError: there is none of that name here.
    """
    if data is None:
        return None
    kind, value = data
    try:
        if kind == "fixed":
            return dt.UTC if not value else dt.timezone(dt.timedelta(seconds=value))
        if kind == "pytz":
            try:
                import pytz  # type: ignore[import-untyped,unused-ignore]  # it says nothing of its types
            except ImportError:
                pass  # pandas did without since: the zone is the same
            else:
                found: dt.tzinfo = pytz.timezone(value)
                return found
        return zoneinfo.ZoneInfo(value)
    except (LookupError, TypeError) as error:
        msg = f"no time zone {value!r}"
        raise ValueError(msg) from error


# Tags -------------------------------------------------------------------------------------------


def _tagged(value: Any, kind: type) -> dict[str, Any]:
    write = _WRITERS.get(kind)
    if write is not None:
        tag, of = write
        return {tag: of(value)}
    module = kind.__module__.partition(".")[0]
    if module == "numpy":
        return {"numpy": _of_numpy(value)}
    if module == "pandas":
        return _of_pandas(value)
    raise _NotExact


def _zone_of(value: dt.datetime | dt.time) -> Any:
    try:
        return pack_zone(value.tzinfo)
    except ValueError:
        raise _NotExact from None


def _of_datetime(value: dt.datetime) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone_of(value)]


def _datetime(data: list[Any]) -> dt.datetime:
    text, fold, zone = data
    return dt.datetime.fromisoformat(text).replace(tzinfo=unpack_zone(zone), fold=fold)


def _of_time(value: dt.time) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone_of(value)]


def _time(data: list[Any]) -> dt.time:
    text, fold, zone = data
    return dt.time.fromisoformat(text).replace(tzinfo=unpack_zone(zone), fold=fold)


def _of_numpy(value: Any) -> list[str]:
    import numpy as np

    if not isinstance(value, np.generic) or value.dtype.hasobject or value.dtype.fields:
        raise _NotExact
    return [value.dtype.str, base64.b64encode(value.tobytes()).decode()]


def _numpy(data: list[str]) -> Any:
    import numpy as np

    kind, raw = data
    return np.frombuffer(base64.b64decode(raw), dtype=np.dtype(kind))[0]


def _of_pandas(value: Any) -> dict[str, Any]:
    import pandas as pd

    kind = type(value)
    if value is pd.NaT:
        return {"NaT": None}
    if value is pd.NA:
        return {"NA": None}
    if kind is pd.Timestamp:
        return {"timestamp": [int(value.asm8.view("i8")), value.unit, _zone_of(value)]}
    if kind is pd.Timedelta:
        return {"duration": [int(value.asm8.view("i8")), value.unit]}
    if kind is pd.Period:
        return {"period": [value.ordinal, value.freqstr]}
    if kind is pd.Interval:
        return {"interval": [pack_value(value.left), pack_value(value.right), value.closed]}
    raise _NotExact


def _timestamp(data: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    number, unit, zone = data
    moment = pd.Timestamp(np.datetime64(number, unit))
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(unpack_zone(zone))


def _duration(data: list[Any]) -> Any:
    import numpy as np
    import pandas as pd

    return pd.Timedelta(np.timedelta64(data[0], data[1]))


def _list(data: list[Any]) -> list[Any]:
    return [unpack_value(one) for one in data]


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    list: ("list", lambda value: [pack_value(one) for one in value]),
    tuple: ("tuple", lambda value: [pack_value(one) for one in value]),
    set: ("set", lambda value: [pack_value(one) for one in value]),
    frozenset: ("frozenset", lambda value: [pack_value(one) for one in value]),
    dict: ("dict", lambda value: [[pack_value(key), pack_value(one)] for key, one in value.items()]),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    complex: ("complex", lambda value: [pack_value(value.real), pack_value(value.imag)]),
    Decimal: ("decimal", str),
    Fraction: ("fraction", lambda value: [hex(value.numerator), hex(value.denominator)]),
    uuid.UUID: ("uuid", str),
    dt.datetime: ("datetime", _of_datetime),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", _of_time),
    dt.timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
}
"""By exact type, since a subclass may be anything: its tag, and what stands behind it."""


@functools.cache
def _readers() -> dict[str, Callable[[Any], Any]]:
    import pandas as pd

    return {
        "int": lambda data: int(data, 16),
        "float": float,
        "text": lambda data: str(data[0]),
        "list": _list,
        "tuple": lambda data: tuple(_list(data)),
        "set": lambda data: set(_list(data)),
        "frozenset": lambda data: frozenset(_list(data)),
        "dict": lambda data: {unpack_value(key): unpack_value(one) for key, one in data},
        "bytes": base64.b64decode,
        "complex": lambda data: complex(*_list(data)),
        "decimal": Decimal,
        "fraction": lambda data: Fraction(int(data[0], 16), int(data[1], 16)),
        "uuid": uuid.UUID,
        "datetime": _datetime,
        "date": dt.date.fromisoformat,
        "time": _time,
        "timedelta": lambda data: dt.timedelta(*data),
        "numpy": _numpy,
        "NaT": lambda _: pd.NaT,
        "NA": lambda _: pd.NA,
        "timestamp": _timestamp,
        "duration": _duration,
        "period": lambda data: pd.Period(ordinal=data[0], freq=data[1]),
        "interval": lambda data: pd.Interval(unpack_value(data[0]), unpack_value(data[1]), data[2]),
    }
