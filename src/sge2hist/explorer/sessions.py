"""Sessions: the edits, settings and history of each tab, in memory alone."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from sge2hist.explorer.edit_list import checked_edit
from sge2hist.explorer.fields import RequestError, as_number, not_found, number, text, too_large
from sge2hist.explorer.limits import LIMITS

Edits = list[dict[str, Any]]
CountCells = Callable[[dict[str, Any]], int]
"""Checked edit -> number of cells that it changes; raises `InputError` for one without effect."""
SETTINGS = ("seed", "n_steps", "guidance")
MAX_SEED = 2**31 - 1


class Session:
    """What one tab has made. Every method that changes something checks all of it first."""

    def __init__(self, key: str, settings: dict[str, Any], count_cells: CountCells) -> None:
        self.key, self.name, self.revision = key, "", 0
        self.edits: Edits = []
        self.settings = dict(settings)
        self._count_cells = count_cells
        self._past: list[Edits] = []
        self._future: list[Edits] = []
        self._merged: str | None = None  # edit that the last change was of: it may be merged into
        self._next = 1
        self.lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """The state of the protocol."""
        edits = deepcopy(self.edits)
        return {
            "session": self.key,
            "revision": self.revision,
            "name": self.name,
            "edits": edits,
            "can_undo": bool(self._past),
            "can_redo": bool(self._future),
            "settings": dict(self.settings),
            "effects": [{"edit": edit["id"], "n_cells": edit["n_cells"]} for edit in edits],
        }

    def expect(self, body: dict[str, Any]) -> None:
        """Raise a conflict if the body names another revision."""
        if body.get("revision") is not None:
            wanted = as_number(body["revision"], "revision", 0, 2**53, whole=True)
            if wanted != self.revision:
                raise RequestError(409, "conflict", f"revision {wanted}; the current one is {self.revision}")

    def add(self, value: object) -> None:
        """Append an edit."""
        if len(self.edits) >= LIMITS.edits:
            raise too_large(f"{len(self.edits) + 1} edits; at most {LIMITS.edits}")
        made = self._made(value)
        self._change([*self.edits, made])
        self._merged = made["id"]

    def replace(self, key: str, value: dict[str, Any]) -> None:
        """Replace an edit; with "merge" the history keeps one step with the last change, if that was of the same edit."""
        position = self._position(key)
        new = self._made(value, key)
        edits = [*self.edits[:position], new, *self.edits[position + 1 :]]
        if value.get("merge") is True and self._merged == key:
            self.edits, self._future = edits, []
            self.revision += 1
        else:
            self._change(edits)
        self._merged = key

    def delete(self, key: str) -> None:
        """Delete an edit."""
        position = self._position(key)
        self._change([*self.edits[:position], *self.edits[position + 1 :]])

    def replace_all(self, values: list[Any], name: str | None = None, settings: dict[str, Any] | None = None) -> None:
        """Replace the list, and the name and settings if given."""
        if len(values) > LIMITS.edits:
            raise too_large(f"{len(values)} edits; at most {LIMITS.edits}")
        checked = checked_settings(settings or {})
        start = self._next
        try:
            edits = [self._made(value) for value in values]
        except Exception:
            self._next = start
            raise
        self._change(edits)
        self.settings |= checked
        self.name = self.name if name is None else name

    def set(self, body: dict[str, Any]) -> None:
        """Change settings."""
        checked = checked_settings(body)
        if checked:
            self.settings |= checked
            self.revision += 1

    def rename(self, body: dict[str, Any]) -> None:
        """Name the list."""
        self.name = text(body, "name", longest=80)
        self.revision += 1

    def undo(self) -> None:
        """Go back one step."""
        if not self._past:
            raise RequestError(409, "conflict", "nothing to undo")
        self._future.append(self.edits)
        self.edits, self._merged = self._past.pop(), None
        self.revision += 1

    def redo(self) -> None:
        """Go forward one step."""
        if not self._future:
            raise RequestError(409, "conflict", "nothing to redo")
        self._past.append(self.edits)
        self.edits, self._merged = self._future.pop(), None
        self.revision += 1

    def _made(self, value: object, key: str | None = None) -> dict[str, Any]:
        edit = checked_edit(value)
        n_cells = self._count_cells(edit)
        if key is None:
            key = f"e{self._next}"
            self._next += 1
        return {"id": key, **edit, "n_cells": n_cells}

    def _position(self, key: str) -> int:
        for position, edit in enumerate(self.edits):
            if edit["id"] == key:
                return position
        raise not_found(f"no edit {key!r}")

    def _change(self, edits: Edits) -> None:
        self._past = [*self._past, self.edits][-LIMITS.history :]
        self.edits, self._future, self._merged = edits, [], None
        self.revision += 1


def checked_settings(body: dict[str, Any]) -> dict[str, Any]:
    """The settings that a body names, checked."""
    out: dict[str, Any] = {}
    if body.get("seed") is not None:
        out["seed"] = int(number(body, "seed", 0, MAX_SEED, whole=True))
    if body.get("n_steps") is not None:
        out["n_steps"] = int(number(body, "n_steps", 1, LIMITS.steps, whole=True))
    if body.get("guidance") is not None:
        out["guidance"] = float(number(body, "guidance", *LIMITS.guidance))
    return out


class Sessions:
    """The live sessions; the one unused for longest ends when there are too many."""

    def __init__(self, settings: dict[str, Any], count_cells: CountCells) -> None:
        self._settings, self._count_cells = settings, count_cells
        self._live: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def new(self) -> Session:
        """Begin a session."""
        session = Session(secrets.token_urlsafe(9), self._settings, self._count_cells)
        with self._lock:
            self._live[session.key] = session
            while len(self._live) > LIMITS.sessions:
                self._live.popitem(last=False)
        return session

    def get(self, key: str) -> Session:
        """A live session."""
        with self._lock:
            if key not in self._live:
                raise RequestError(404, "session_gone", "this session has ended")
            self._live.move_to_end(key)
            return self._live[key]

    def end(self, key: str) -> None:
        """End a session."""
        self.get(key)
        with self._lock:
            self._live.pop(key, None)

    def latest(self) -> Session | None:
        """The session used last."""
        with self._lock:
            return next(reversed(self._live.values()), None)
