"""Which Python function is meant, and how does it want to be called? Blocks while importing: call it in a thread."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.sdk import PluginFailed
from knotwork_plugins.executors.python_function import raising

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A function ready to be called."""

    call: Callable[..., Any]
    signature: inspect.Signature
    takes_input: bool
    takes_attempt: bool
    in_loop: bool
    module_name: str = ""

    def forget(self) -> None:
        """Take a module that was loaded from a file out of `sys.modules`."""
        if self.module_name:
            sys.modules.pop(self.module_name, None)


def load(reference: str, *, spread: bool, base: Path) -> Loaded:
    """Import `pkg.mod:func` or `./file.py:func`; a file is loaded anew each time, a relative path counts from `base`.

    Raises `PluginFailed` when that fails, whatever the module does, and when the function cannot be called so.
    """
    where, _, name = reference.rpartition(":")
    from_file = where.endswith(".py")
    try:
        module = _from_file(base / Path(where).expanduser()) if from_file else importlib.import_module(where)
    except PluginFailed:
        raise
    except (Exception, SystemExit) as error:  # a border: the module is foreign code
        raise PluginFailed(
            f"importing {where!r} failed: {type(error).__name__}: {error}",
            code="python.import_failed",
            hint="Mend the module, or add its folder to `path`.",
            detail={"where": raising.where(error)},
        ) from error
    target: Any = module
    for part in name.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise PluginFailed(
            f"{where!r} has no function {name!r}.",
            code="python.no_function",
            hint=f"It has: {', '.join(_functions(module)[:20]) or 'none'}.",
        )
    loaded = _describe(target, spread=spread, reference=reference)
    return Loaded(*loaded, module_name=module.__name__ if from_file else "")


def files_of(reference: str, base: Path) -> tuple[Path, ...]:
    """Return the file that `./file.py:func` names; none for a module."""
    where = reference.rpartition(":")[0]
    return (base / Path(where).expanduser(),) if where.endswith(".py") else ()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginFailed(
            f"the file {str(path)!r} does not exist.",
            code="python.no_file",
            hint="A relative path counts from the folder of the configuration file.",
        )
    name = f"knotwork_function_{next(_NUMBERS)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        # Not `exec_module`: its bytecode cache takes an edit of equal length within one second for no edit at all.
        exec(compile(path.read_bytes(), path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  what the operator named
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _describe(
    target: Callable[..., Any], *, spread: bool, reference: str
) -> tuple[Callable[..., Any], inspect.Signature, bool, bool, bool]:
    """Return how the target is called: its signature, with the input?, with the attempt?, in the loop?"""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # some functions written in C do not tell
        signature = inspect.Signature([inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)])
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    needed = [p for p in positional if p.default is p.empty]
    keywords_needed = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_attempt = (
        any(p.name == "attempt" and p.kind is not p.POSITIONAL_ONLY for p in parameters)
        if spread
        else (
            len(positional) > 1
            and (positional[1].name == "attempt" or positional[1].default is inspect.Parameter.empty)
        )
    )
    if not spread and (len(needed) > 2 or keywords_needed):  # noqa: PLR2004 - the input and the attempt
        raise PluginFailed(
            f"{reference!r} wants {len(needed) + len(keywords_needed)} arguments; it is called with the input, "
            "or with the input and the attempt.",
            code="python.wrong_signature",
            hint="Set spread = true to give each key of the input as one argument.",
        )
    inner = target if inspect.isroutine(target) else getattr(target, "__call__", target)  # noqa: B004 - the method itself
    inner = getattr(inner, "func", inner)  # functools.partial
    in_loop = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
    return target, signature, bool(positional) or takes_more, takes_attempt, in_loop


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isroutine(value) and not name.startswith("_")]
