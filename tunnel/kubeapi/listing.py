"""Takes a list of the Kubernetes API apart while it comes in, so that no more of it is held than one object.

A box may send megabytes. Decoded at once they would be ten times as much, and nobody else had a turn meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunnel.kubeapi.encoding import decode

MAX_FRAME_BYTES = 64 * 1024
"""The most bytes beside the objects: kind, metadata, commas. Of 512 objects they are below 2 KiB."""

_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
"""What is before the next bracket, whole strings among it, or before a string whose end has not come yet. Nothing of it
is tried twice, so that the work is in proportion to the length.
"""
_TO_STRING = re.compile(rb'[^"{}\[\]]*+')
_REST_OF_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


class ListSplitter:
    """Splits the text of a list into its frame and the texts of its objects. It decodes none of them.

    Attributes:
        length: how many bytes were fed so far.
        too_large: how many objects were left out so far, since they are longer than allowed.
    """

    def __init__(self, max_item_bytes: int, field: str = "items") -> None:
        """Begins with nothing. Objects of more than `max_item_bytes` are passed over; `field` is where they are."""
        self.length = 0
        self.too_large = 0
        self._field = field
        self._name = f'"{field}"'.encode()
        self._max_item_bytes = max_item_bytes
        self._frame = bytearray()
        self._item: bytearray | None = None
        """The object that has begun; None between two."""
        self._is_too_large = False
        self._depth = 0
        self._in_items = False
        self._key = b""
        """The last string: before a bracket in the list's own object it is the name of the field."""
        self._in_string = False
        self._escaped = False

    # Public

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next part of the text, and yields each object that is whole now. The caller must use it up.

        Raises:
            ValueError: there is more beside the objects than any list has.
        """
        self.length += len(data)
        kept = at = 0  # what is before `kept` is in the frame or in an object already
        if self._in_string:
            at = self._string_goes_on(data)
        while at < len(data):
            # Of the list's own object the names of fields count, deeper down no string does.
            found = (_TO_STRING if self._depth <= 1 else _TO_BRACKET).match(data, at)
            at = found.end() + 1 if found is not None else len(data)
            match data[at - 1 : at] if at <= len(data) else b"":
                case b'"':
                    self._in_string, self._key = True, b'"'
                    at = self._string_goes_on(data, at)
                case b"{" | b"[" as sign:
                    if self._opens(sign):
                        self._keep(data[kept : at - 1])
                        self._item, kept = bytearray(), at - 1
                case b"}" | b"]":
                    if self._closes():
                        self._keep(data[kept:at])
                        kept = at
                        if item := self._ended():
                            yield item
        self._keep(data[kept:])

    def frame(self) -> dict[str, object]:
        """Returns the list without its objects, in whose place there are zeros. The caller must have fed all of it.

        Raises:
            ValueError: what was fed is no list, or not all of one.
        """
        frame = decode(bytes(self._frame)) if self._item is None else None
        items = frame.get(self._field) if isinstance(frame, dict) else 0
        if not isinstance(frame, dict) or not (items is None or isinstance(items, list)):
            raise ValueError("it is no list")
        return frame

    # Internal

    def _opens(self, sign: bytes) -> bool:
        """Takes note of a bracket that opens; returns whether an object of the list begins with it."""
        begins = sign == b"{" and self._in_items and self._depth == 2
        if sign == b"[" and self._depth == 1:
            self._in_items = self._key == self._name
        self._depth += 1
        return begins

    def _closes(self) -> bool:
        """Takes note of a bracket that closes; returns whether an object of the list ends with it."""
        self._depth -= 1
        self._in_items &= self._depth > 1
        return self._depth == 2 and self._item is not None

    def _string_goes_on(self, data: bytes, at: int = 0) -> int:
        """Returns where the string that has begun ends in `data`, behind its quote; all of `data` when it does not."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        found = _REST_OF_STRING.match(data, at)
        end = found.end() if found is not None else len(data)
        if len(self._key) <= len(self._name):  # no more of it is needed to tell it from another
            self._key += data[start : min(end, start + len(self._name)) + 1]
        if data[end : end + 1] == b'"':
            self._in_string = False
            return end + 1
        self._escaped = end < len(data)  # only the sign that takes away the meaning of the next has come
        return len(data)

    def _keep(self, data: bytes) -> None:
        if self._item is None:
            self._frame += data
            if len(self._frame) > MAX_FRAME_BYTES:
                raise ValueError("there is too much beside its objects")
        elif not self._is_too_large:
            self._item += data
            if len(self._item) > self._max_item_bytes:
                self._is_too_large = True
                self._item.clear()

    def _ended(self) -> bytes:
        """Ends the object that has begun and returns it; empty when it is too large."""
        assert self._item is not None
        item = bytes(self._item)
        self.too_large += self._is_too_large
        self._item, self._is_too_large = None, False
        self._frame += b"0"
        return item
