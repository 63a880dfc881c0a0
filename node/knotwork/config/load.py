"""What does the configuration say? Reads every layer, fills in variables, and judges the whole at once.

Layers, weakest first: built-in defaults, `--config` files, `*.toml` of `--config-dir`, environment
`KNOTWORK__SECTION__KEY`, `--set key=value`. A configuration is taken whole or not at all: `sdk.ConfigInvalid` carries
every problem with file, line and column.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from knotwork.config import files, instances, judge, layers
from knotwork.config.files import Text
from knotwork.config.instances import check_instances
from knotwork.config.keys import dotted
from knotwork.config.layers import Layer, Merged
from knotwork.config.loaded import Loaded, Sources, effective, folder_of
from knotwork.config.parse import parse
from knotwork.config.problems import Problem, invalid

__all__ = ["Loaded", "Sources", "check_instances", "effective", "read"]


def read(
    sources: Sources, *, texts: tuple[Text, ...] | None = None, find_types: instances.FindTypes | None = None
) -> Loaded:
    """Return the configuration; `texts` stand in for the files, for instance those of an earlier revision.

    Raises `ConfigInvalid` with all problems. The tables of plugins are judged by `check_instances`, once it is known
    which plugins there are; when something else is wrong, `find_types` finds out, so that all is told at once.
    """
    env = os.environ if sources.env is None else sources.env
    problems: list[Problem] = []
    if texts is None:
        texts = _read_files(sources, env, problems)
    merged, partly = Merged(), False
    for text in texts:
        parsed = parse(str(text.path), text.text)
        problems += parsed.problems
        partly = partly or not parsed.whole
        layer = Layer(str(text.path), parsed.data, parsed.text, text.shared)
        readings, refused = layers.fill_in(layer, env)
        for path, why in refused:
            place = layer.place(path, value=True)
            problems.append(Problem(layer.name, *place, dotted(path), f"{dotted(path)}: {why}", why.hint, why.code))
        merged.add(layer)
        merged.readings.update(readings)
    for path, first, second in merged.clashes:
        message, hint = layers.clash_message(path, f"{first.name}:{first.place(path)[0]}")
        problems.append(Problem(second.name, *second.place(path), dotted(path), message, hint, "config.duplicate"))
    problems += _overrides(merged, env, sources.sets)
    refused_values = {problem.key for problem in problems if problem.key}
    partly = partly or any(problem.code in _READING for problem in problems)
    config, found = judge.judge(merged, partly=partly)
    problems += [problem for problem in found if not _follows(problem, refused_values)]
    if problems or config is None:
        if find_types is not None:
            told = {problem.key for problem in problems if problem.key}
            folder = folder_of(texts)
            known = find_types(merged.data, folder)
            found = instances.judge_tables(merged, known, folder=folder, env=env, partly=partly)
            problems += [one for one in found if one.key not in told and not _follows(one, refused_values)]
        raise invalid(problems)
    return Loaded(config, sources, texts, merged)


def _follows(problem: Problem, refused: set[str]) -> bool:
    """Say whether a problem says nothing new: a value that could not be filled in has been told already.

    What that value does not fit is told of its own key, or of a table around it (a rule about several keys).
    """
    key = problem.key
    return any(key and one.startswith(key) and one[len(key) : len(key) + 1] in ("", ".", "[") for one in refused)


_READING = ("config.unreadable", "config.empty", "config.encoding", "config.too_large", "config.not_found")


def _read_files(sources: Sources, env: Mapping[str, str], problems: list[Problem]) -> tuple[Text, ...]:
    named: list[tuple[Path, bool]] = [(path, False) for path in sources.files]
    if sources.config_dir is not None:
        inside, wrong = files.in_folder(sources.config_dir)
        problems += wrong
        named += [(path, True) for path in inside]
    elif not named and (path := files.search(env)) is not None:
        named = [(path, False)]
    texts: list[Text] = []
    for path, shared in named:
        text = files.read_text(path)
        if isinstance(text, Problem):
            problems.append(text)
        elif not text.strip():  # as an editor or a full disk leaves it
            hint = "Restore it, or begin with `knotwork init`; for the defaults alone write a comment into it."
            problems.append(Problem(str(path), 1, 1, "", "the file is empty", hint, "config.empty"))
        else:
            texts.append(Text(path, text, shared))
    return tuple(texts)


def _overrides(merged: Merged, env: Mapping[str, str], sets: tuple[str, ...]) -> list[Problem]:
    """Lay environment and `--set` over the files; return what is wrong with them."""
    found, raw, problems = layers.from_env(env, merged.data, judge.SKELETON)
    for layer, (path, text) in zip(found, raw.items(), strict=True):
        merged.add(layer)
        merged.readings[path] = text
    for written in sets:
        one = layers.from_set(written)
        if isinstance(one, Problem):
            problems.append(one)
            continue
        layer, path, text = one
        merged.add(layer)
        merged.readings[path] = text
    return problems
