"""What is said to the shell on the far side, and what does its answer mean? Pure.

Every script goes to `/bin/sh -s` on its standard input, so nothing of it, secrets least of all, stands on a command line
or in a file of either side. It is one function that is called in its last line: a script cut off in the middle does
nothing. Answers are lines that begin with a mark, since a login shell may print what it likes.

A launch has a folder of its own there, which can be made only once. Its first process is a small shell that leads a
session, notes its number and start time, runs the command, and notes how it ended.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = "knotwork:"
KILLED_WITHIN_S = 10
COMES_WITHIN_S = 15
_LAUNCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")

# Sets pid and began of the launch in $dir; `living` prints the numbers of its processes that are no zombies: its group,
# as long as that is surely its own, and (Linux) whatever carries the id of the launch in its environment.
_FINDING = r"""
began_of() {
  began=
  if [ -r /proc/self/stat ]; then
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
    set -- ${line##*") "}
    case $1 in Z|X) return 0;; esac
    shift 19; began=$1
  else
    began=$(LC_ALL=C ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' _)
  fi
}
marked() {
  [ -d /proc/self ] && grep -slzxF "KNOTWORK_LAUNCH=$launch" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
}
group() {
  if [ -r /proc/self/stat ]; then
    for f in /proc/[0-9]*/stat; do
      { read -r line <"$f"; } 2>/dev/null || continue
      id=${f#/proc/}
      set -- ${line##*") "}
      case $1 in Z|X) continue;; esac
      [ "$3" = "$pid" ] && echo "${id%/stat}"
    done
  else
    ps -A -o pid=,pgid=,stat= | awk -v g="$pid" '$2 == g && $3 !~ /^Z/ { print $1 }'
  fi
}
living() {
  strays=$(marked)
  began_of "$pid"
  own=
  if [ -n "$began" ] && [ "$began" = "$since" ]; then own=yes; fi
  if [ -z "$own" ] && [ -n "$strays" ]; then
    members=" $(group | tr '\n' ' ') "
    for one in $strays; do case $members in *" $one "*) own=yes;; esac; done
  fi
  { [ -n "$own" ] && group; [ -n "$strays" ] && echo "$strays"; } | sort -un
}
known() {
  pid=; since=
  [ -s "$dir/pid" ] && read -r pid since <"$dir/pid"
  case $pid in ''|*[!0-9]*) pid=; return 1;; esac
}
"""

_LEADER = r"""
dir=$1; mask=$2; shift 2
if [ -r /proc/self/stat ]; then
  read -r line <"/proc/$$/stat"; line=${line##*") "}
  began=$(set -- $line; shift 19; echo "$1")
else
  began=$(LC_ALL=C ps -o lstart= -p $$ | tr -s " " _)
fi
echo "$$ $began" >"$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
trap : HUP INT TERM
umask "$mask"
"$@"
echo "$?" >"$dir/exit"
"""

_LAUNCH = r"""
  mask=$(umask); umask 077
  home=@HOME@; launch=@LAUNCH@; dir=$home/$launch
  mkdir -p "$home" 2>/dev/null || { fault no_state "$home"; return; }
  if ! mkdir "$dir" 2>/dev/null; then
    n=0
    while [ ! -s "$dir/pid" ] && [ $n -lt 3 ]; do sleep 1; n=$((n+1)); done
    if known; then say launched "$pid" "$since"; return; fi
    [ -d "$dir" ] || { fault no_state "$home"; return; }
  fi
@EXPORTS@
  look || { rmdir "$dir" 2>/dev/null; return; }
  $new_session /bin/sh -c @LEADER@ knotwork "$dir" "$mask" @COMMAND@ </dev/null >>"$dir/output" 2>&1 &
  n=0
  while [ ! -s "$dir/pid" ] && [ $n -lt @COMES_WITHIN_TENTHS@ ]; do sleep 0.1 2>/dev/null || sleep 1; n=$((n+1)); done
  if known; then say launched "$pid" "$since"; else fault not_started "$dir"; fi
"""

_LOOK = r"""
look() {
  cd @CWD@ 2>/dev/null || { fault no_folder @CWD@; return 1; }
  command -v @PROGRAM@ >/dev/null 2>&1 || { fault no_command @PROGRAM@; return 1; }
  if command -v setsid >/dev/null 2>&1; then new_session=setsid
  elif command -v perl >/dev/null 2>&1; then new_session="perl -MPOSIX -e POSIX::setsid();exec(@ARGV)"
  else fault no_setsid; return 1; fi
}
"""

_PROBE = r"""
  umask 077
  home=@HOME@
  mkdir -p "$home" 2>/dev/null && [ -w "$home" ] || { fault no_state "$home"; return; }
@EXPORTS@
  look && say well
"""

_CONDITION = r"""
  home=@HOME@; launch=@LAUNCH@; dir=$home/$launch
  if [ ! -d "$dir" ]; then say gone; return; fi
  if ! known; then say unknown; return; fi
  if [ -n "$(living)" ]; then say running "$pid"
  elif [ -s "$dir/exit" ]; then say ended "$(cat "$dir/exit")"
  else say killed; fi
  size=$(wc -c <"$dir/output" 2>/dev/null || echo 0)
  if [ "$size" -gt @OUTPUT_MAX@ ]; then  # what is printed in this very moment is lost: no shell can cut a file in one go
    tail -c 65536 "$dir/output" >"$dir/output.end" && cat "$dir/output.end" >"$dir/output"; rm -f "$dir/output.end"
  fi
  say output; tail -c @TAIL@ "$dir/output" 2>/dev/null
"""

_STOP = r"""
  home=@HOME@; launch=@LAUNCH@; dir=$home/$launch
  known
  send() { for one in $(living); do kill -s "$1" "$one" 2>/dev/null; done; }
  wait_gone() {
    n=0
    while [ -n "$(living)" ]; do
      [ $n -ge "$1" ] && return 1
      if [ "$2" ]; then send "$2"; fi
      sleep 0.1 2>/dev/null || { sleep 1; n=$((n+9)); }
      n=$((n+1))
    done
  }
  pid=${pid:-none}
  send TERM
  wait_gone @GRACE_TENTHS@ '' || { send KILL; wait_gone @KILL_TENTHS@ KILL || { fault will_not_end "$pid"; return; }; }
  rm -rf "$dir"
  say gone
"""


@dataclass(frozen=True, slots=True)
class Said:
    """The far side's answer: a word of ours with what belongs to it, and what the launch printed."""

    word: str = ""
    rest: str = ""
    fault: str = ""
    output: bytes = b""


def home(folder: str) -> str:
    """Return where launches are kept there, in shell words."""
    if folder:
        return _path(folder)
    return '"${XDG_STATE_HOME:-$HOME/.local/state}/knotwork/launches"'


def is_launch_id(launch: str) -> bool:
    """Say whether this can be the id of a launch, and so the name of a folder."""
    return _LAUNCH_ID.fullmatch(launch) is not None


def launch(*, launch: str, folder: str, cwd: str, command: Sequence[str], program: str, env: Mapping[str, str]) -> str:
    """Return the script that starts the command once; `program` is what must be there."""
    return _whole(
        _FINDING + _look(cwd, program),
        _LAUNCH,
        HOME=home(folder),
        LAUNCH=quote(launch),
        LEADER=quote(_LEADER),
        COMMAND=" ".join(map(quote, command)),
        COMES_WITHIN_TENTHS=str(COMES_WITHIN_S * 10),
        EXPORTS=_exports(env),
    )


def probe(*, folder: str, cwd: str, program: str, env: Mapping[str, str]) -> str:
    """Return the script that says whether a launch would find what it needs; `env` may set its PATH."""
    return _whole(_look(cwd, program), _PROBE, HOME=home(folder), EXPORTS=_exports(env))


def condition(*, launch: str, folder: str, tail_bytes: int, output_max_bytes: int) -> str:
    """Return the script that says how a launch is, and keeps its output from growing without end."""
    return _whole(
        _FINDING, _CONDITION,
        HOME=home(folder), LAUNCH=quote(launch), TAIL=str(tail_bytes), OUTPUT_MAX=str(output_max_bytes),
    )  # fmt: skip


def stop(*, launch: str, folder: str, grace_s: float) -> str:
    """Return the script that ends a launch and clears it away."""
    return _whole(
        _FINDING, _STOP,
        HOME=home(folder), LAUNCH=quote(launch), GRACE_TENTHS=str(math.ceil(grace_s * 10)),
        KILL_TENTHS=str(KILLED_WITHIN_S * 10),
    )  # fmt: skip


def read(output: bytes) -> Said:
    """Return the first line that is an answer of ours, and the output after it."""
    mark = MARK.encode()
    before, found, after = output.partition(mark + b"output\n")
    word = rest = fault = ""
    for line in before.splitlines():
        if line.startswith(mark):
            word, _, rest = line[len(mark) :].decode(errors="replace").partition(" ")
            if word == "fault":
                fault, _, rest = rest.partition(" ")
            break
    return Said(word, rest, fault, after if found else b"")


def _exports(env: Mapping[str, str]) -> str:
    return "\n".join(f"  export {name}={quote(value)}" for name, value in env.items())


def _look(cwd: str, program: str) -> str:
    return _fill(_LOOK, CWD=_path(cwd) if cwd else '"$HOME"', PROGRAM=quote(program))


def _path(path: str) -> str:
    """Return a path in shell words, where a leading `~/` is the home of the user there."""
    return f'"$HOME"/{quote(path[2:])}' if path.startswith("~/") else quote(path)


def _whole(before: str, body: str, **places: str) -> str:
    said = 'say() { printf "%s%s\\n" ' + MARK + ' "$*"; }\nfault() { say fault "$@"; }\n'
    return f"{said}{before}\nmain() {{{_fill(body, **places)}}}\nmain\nexit 0\n"


def _fill(template: str, **places: str) -> str:
    """Put each value in its place, in one go: what a value holds is never taken for a place."""
    return re.sub(r"@([A-Z_]+)@", lambda place: places[place[1]] if place[1] in places else place[0], template)
