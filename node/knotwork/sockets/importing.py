"""How is foreign code brought in so that it can neither hang nor end the node?

The import runs in a thread of its own. When its time is over the thread is abandoned: it is a daemon, so it cannot
keep the process alive, and it is sent an exception, which ends loops of Python code (not a blocking system call).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from knotwork.config import regular
from knotwork.sdk import PluginFailed
from knotwork.sockets import own_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork.sockets.sources import Source

T = TypeVar("T")


class Abandoned(BaseException):
    """Raised inside an import whose time is over; no `except Exception` of the plugin may stop it."""


class Errand(Generic[T]):
    """One call in a thread of its own, whose result can be waited for."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        """Start at once; `start_s` is monotonic."""
        self._call = call
        self._result: T | None = None
        self.error: BaseException | None = None
        self.start_s, self.took_s = time.monotonic(), 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"import {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001  a plugin that calls sys.exit() while imported is broken, no more
            self.error = error
        self.took_s = time.monotonic() - self.start_s
        self._done.set()

    def finished(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds; say whether it is done."""
        return self._done.wait(timeout_s)

    def result(self) -> T:
        """Return the result or raise what the call raised; only after `finished`."""
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # T may include None

    def abandon(self) -> None:
        """Give it up and ask its thread to end."""
        if self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), ctypes.py_object(Abandoned))


def bring_in(source: Source) -> Any:
    """Import what `source` names and return the object that carries the hooks; raises whatever its code raises."""
    if source.kind in ("bundled", "package"):
        module, _, attribute = source.where.partition(":")
        found = importlib.import_module(module)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
        return found
    if source.kind == "file":
        return _from_file(Path(source.where), source.digest)
    return _from_folder(Path(source.where), source)


def _from_folder(folder: Path, source: Source) -> Any:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # after ours: a plugin must not shadow what the node imports
    changed = _digests.get(folder) != source.digest
    with own_modules.imported_anew(folder) if changed else nullcontext():
        own_modules.refuse_taken(folder, source.entry)
        if source.entry.endswith(".py"):
            found = _from_file(folder / source.entry, source.digest)
        else:
            found = importlib.import_module(source.entry)
    _digests[folder] = source.digest
    return found


def _from_file(path: Path, digest: str) -> Any:
    """Import one file under a name of its own, so that equal file names and changed contents never meet."""
    marked = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()[:12]
    name = f"{own_modules.MARK}{marked}_{path.stem.replace('-', '_')}"
    if name in _whole:
        return sys.modules[name]
    if name in sys.modules:
        raise PluginFailed(f"{path} is still being imported", code="plugin.import_hung", hint=_SLOW)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginFailed(f"{path} is not a Python file", code="plugin.file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through it
    try:
        with regular.opened(path) as file:
            text = file.read()
        # Not `exec_module`: its bytecode cache takes an edit of equal length within one second for no edit at all.
        exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  what a plugin is
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _whole.add(name)
    return module


_whole: set[str] = set()
"""The modules imported from files to their end: what is in `sys.modules` may be half of one."""
_digests: dict[Path, str] = {}
"""What of each folder is imported: modules are read again when it is another one."""
_SLOW = "Move slow work from import into `open`."
