"""What a call answered, kept by value: a copy that nobody changes, that compares, and whose difference can be shown."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import pprint
import sys
import types
import zlib
from collections.abc import Callable
from typing import Any

# One object, so that lists and dicts of it are equal.
NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Array:
    """The content of a numpy array, bit for bit."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes

    def values(self) -> Any:
        return sys.modules["numpy"].frombuffer(self.content, self.dtype).reshape(self.shape)

    def __repr__(self) -> str:
        if len(self.content) > 2000:
            return f"<array {self.dtype} {self.shape}, crc32 {zlib.crc32(self.content):08x}>"
        return f"<array {self.dtype} {self.values().tolist()}>"


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a call gave: a value or an error. Two errors are equal when their types and messages are."""

    value: Any = None
    error: Exception | None = None
    raised: str | None = None

    @classmethod
    def of(cls, call: Callable[[], Any]) -> tuple[Answer, Any]:
        """The answer of a call, and the very object it returned."""
        try:
            returned = call()
        except Exception as error:  # noqa: BLE001 - an error is an answer
            return cls(error=error, raised=_named(error)), None
        return cls(value=by_value(returned)), returned

    def __eq__(self, other: object) -> bool:
        # In lists, so that NAN is itself.
        return isinstance(other, Answer) and [self.raised, self.value] == [other.raised, other.value]

    def lines(self) -> list[str]:
        return [f"raised {self.raised}"] if self.raised is not None else pprint.pformat(self.value, width=120).splitlines()


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def by_value(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """A copy of plain containers, arrays and values. Objects that compare by identity, and dataclasses, become their fields."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return value
    if isinstance(value, float):
        return NAN if math.isnan(value) else value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, BaseException):
        return _named(value)
    if id(value) in inside:
        return "<itself>"
    inside = (*inside, id(value))
    if isinstance(value, dict):
        return {key: by_value(item, inside) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [by_value(item, inside) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if _is_array(value):
        return _array(value, inside)
    named = type(value).__qualname__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Those that the class itself compares: how long it took, for example, is no part of an answer.
        compared = [field.name for field in dataclasses.fields(value) if field.compare]
        return {named: {name: by_value(getattr(value, name), inside) for name in compared}}
    if getattr(type(value), "__eq__", None) is object.__eq__ or isinstance(value, types.SimpleNamespace):
        return {named: by_value(vars(value), inside)} if hasattr(value, "__dict__") and not callable(value) else value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - what cannot be copied is compared as it is
        return value


def _is_array(value: Any) -> bool:
    # numpy is looked up, not imported: whoever has an array has imported it. Tensors, images and data frames say what they are.
    return "numpy" in sys.modules and not isinstance(value, type) and (hasattr(value, "__array__") or hasattr(value, "__array_interface__"))


def _array(value: Any, inside: tuple[int, ...]) -> Any:
    array = sys.modules["numpy"].asarray(value)
    # Objects are pointers, and records may have bytes between their fields that nobody wrote.
    if array.dtype.hasobject or array.dtype.names:
        return by_value(array.tolist(), inside)
    return Array(array.dtype.str, array.shape, array.tobytes())


def difference(alone: Answer, together: Answer) -> str:
    """A diff of the two, at most 40 lines, and of arrays the first value that differs."""
    diff = list(difflib.unified_diff(alone.lines(), together.lines(), "alone", "at once", n=1, lineterm=""))
    shown = [line[:400] for line in diff[:40]]
    if len(diff) > len(shown):
        shown.append(f"... {len(diff) - len(shown)} more lines")
    return "\n".join([*shown, *_first_array(alone.value, together.value)])


def _first_array(a: Any, b: Any) -> list[str]:
    """Where the first pair of arrays of one shape differs."""
    if isinstance(a, Array) and isinstance(b, Array):
        if (a.dtype, a.shape) != (b.dtype, b.shape) or a == b:
            return []
        numpy = sys.modules["numpy"]
        x, y = numpy.atleast_1d(a.values()), numpy.atleast_1d(b.values())
        # A NaN is no other than a NaN.
        places = numpy.argwhere((x != y) & ((x == x) | (y == y)))
        if not len(places):
            return ["the arrays differ in the sign of a zero or the bits of a NaN"]
        where = tuple(places[0].tolist())
        return [f"{len(places)} of {x.size} values of an array differ, the first at {list(where)}: {x[where]} alone, {y[where]} at once"]
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(a[key], b[key]) for key in a if key in b]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        pairs = list(zip(a, b, strict=False))
    else:
        return []
    return next((found for pair in pairs if (found := _first_array(*pair))), [])
