"""The bundled places that events, spans and metrics go to; what they need is imported when one is opened."""

from knotwork_plugins.telemetry import jsonl, nats, otlp, prometheus

FACTORIES = (jsonl.FACTORY, prometheus.FACTORY, otlp.FACTORY, nats.FACTORY)
