"""An agent in a container of the local Docker."""
