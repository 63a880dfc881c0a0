"""What does a node tell people while it runs? One line per thing that happened, on standard error, secrets redacted."""

from __future__ import annotations

import logging
import sys

from knotwork.config import secrets

NOISY = ("nats", "httpx", "httpcore", "watchfiles", "uvicorn")


def start(level: str, *, quiet: bool) -> None:
    """Log to standard error from now on; with `quiet` only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(secrets.SecretLogFilter())
    logging.basicConfig(level="WARNING" if quiet else level.upper(), handlers=[handler], force=True)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_level(level: str, *, quiet: bool) -> None:
    """Log from this level on."""
    logging.getLogger().setLevel(logging.WARNING if quiet else level.upper())
