"""What happened: records go to sinks, and nobody waits for them."""
