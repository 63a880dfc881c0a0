"""The door for people and scripts: an HTTP API made from the ops table, with its OpenAPI description."""
