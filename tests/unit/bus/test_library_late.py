"""What of nats-py nobody uses is loaded at its first use, and is whole then."""

import subprocess
import sys

LATE = """
import sys
from knotwork.bus import connection, library
late = sys.modules["nats.js"]
assert type(late).__name__ == "_LazyModule", "nats-py's JetStream is loaded with the bus"
assert "nats.js.api" not in sys.modules
import nats
assert nats.js.api.Header.STATUS == "Status"
from nats.js import JetStreamContext
assert nats.NATS().jetstream().__class__ is JetStreamContext
"""


def test_jetstream_of_nats_py_is_loaded_at_its_first_use():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
