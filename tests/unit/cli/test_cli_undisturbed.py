"""What a node's process ignores from its first moment on, before a line of it has run."""

import signal
import subprocess

import pytest

from knotwork.cli.undisturbed import hangup_ignored, undisturbed

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
HANGS_UP = ["sh", "-c", "kill -HUP $$; echo alive"]


def test_a_process_started_inside_ignores_hangup_and_we_do_not():
    before = signal.getsignal(signal.SIGHUP)
    with undisturbed(), hangup_ignored():
        assert subprocess.run(HANGS_UP, capture_output=True, check=False).stdout == b"alive\n"
    assert signal.getsignal(signal.SIGHUP) == before
    assert subprocess.run(HANGS_UP, capture_output=True, check=False).returncode == -signal.SIGHUP
