"""What a node's process ignores from its first moment on, before a line of it has run."""

import signal
import subprocess

import pytest

from knotwork.cli.undisturbed import hangup_ignored, undisturbed

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
HANGS_UP = ["sh", "-c", "kill -HUP $$; echo alive"]


@pytest.fixture(autouse=True)
def hangup_ends():
    """Whoever started us may have it ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_process_started_inside_ignores_hangup_and_we_do_not():
    with undisturbed(), hangup_ignored():
        assert subprocess.run(HANGS_UP, capture_output=True, check=False).stdout == b"alive\n"
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert subprocess.run(HANGS_UP, capture_output=True, check=False).returncode == -signal.SIGHUP
