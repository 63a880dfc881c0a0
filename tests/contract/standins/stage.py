"""What do the scripted stand-ins of vendors' command lines share? Misbehaviour on demand, and a record of the call.

A stand-in speaks the output that the vendor documents and refuses flags that the vendor does not. Words in capitals in
the prompt make it misbehave.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LINE = "x" * 100_000
SLEEPER = [sys.executable, "-S", "-c", "import time; time.sleep(60)", os.environ.get("STANDIN_TOKEN", "")]


def emit(event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def record(prompt):
    """Leave what was given where the test asks for it."""
    if path := os.environ.get("STANDIN_RECORD"):
        told = {"argv": sys.argv[1:], "prompt": prompt, "env": dict(os.environ), "cwd": str(Path.cwd())}
        Path(path).write_text(json.dumps(told), encoding="utf-8")


def odd(prompt):
    """Be as odd as the prompt asks, before the answer."""
    for word, act in ODDITIES.items():
        if word in prompt:
            act(prompt)


def garbage(_):
    sys.stdout.buffer.write(b'Loading...\n\xff\xfe\x00\n{"type": \n[1, 2]\nnull\n{"type": NaN}\n')
    sys.stdout.buffer.write(b"[" * 5000 + b"\n" + b'{"a":' * 5000 + b"\n")
    sys.stdout.flush()


def unknown(_):
    emit({"type": "brand.new", "data": {"x": [1]}})
    emit({"type": 7, "message": {"content": "no list"}})
    emit({"no": "type"})


def huge(_):
    for _ in range(3):
        sys.stdout.write('{"type": "tool_result", "output": "' + 50 * LINE + '"}\n')
    sys.stdout.flush()


def flood(_):
    while True:
        emit({"type": "noise", "text": LINE})


def noisy(_):
    sys.stderr.write((LINE + "\n") * 30)
    sys.stderr.flush()


def stray(_):
    subprocess.Popen(SLEEPER)  # holds our stdout for a long time after we are gone


def escapee(_):
    subprocess.Popen(SLEEPER, start_new_session=True)


def hang(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(SLEEPER)
    time.sleep(60)


def linger(_):
    atexit.register(time.sleep, 600)  # when everything has been said


def crash(_):
    os.kill(os.getpid(), signal.SIGKILL)


def complain(prompt):
    sys.stderr.write(prompt.partition("COMPLAIN ")[2] + "\n")
    raise SystemExit(1)


def mutter(prompt):
    sys.stdout.write(prompt.partition("MUTTER ")[2] + "\n")
    sys.stdout.flush()
    raise SystemExit(1)


ODDITIES = {
    "GARBAGE": garbage,
    "UNKNOWN": unknown,
    "HUGE": huge,
    "FLOOD": flood,
    "NOISY": noisy,
    "STRAY": stray,
    "ESCAPEE": escapee,
    "HANG": hang,
    "LINGER": linger,
    "CRASH": crash,
    "COMPLAIN": complain,
    "MUTTER": mutter,
}
