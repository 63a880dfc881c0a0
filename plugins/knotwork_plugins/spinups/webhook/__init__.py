"""An agent that something behind a URL starts."""
