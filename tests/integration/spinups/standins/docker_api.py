"""A stand-in for the Docker Engine on a Unix socket: as much of its API (1.44) as starting and ending a container needs."""

# ruff: noqa: PLR0911 - one return per route reads best

from __future__ import annotations

import re
import secrets
import threading
from pathlib import Path
from typing import Any

from speaking import Asked, Reply, Speaking


def frames(*lines: str) -> bytes:
    """Return output as Docker frames it: the first line from stdout, the others from stderr."""
    pieces = []
    for number, line in enumerate(lines):
        data = line.encode() + b"\n"
        pieces.append(bytes([1 if number == 0 else 2, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)
    return b"".join(pieces)


class DockerApi(Speaking):
    """`images` are here already, `registry` can be pulled; a container whose command is `false` ends at once with 3."""

    def __init__(self, socket: Path) -> None:
        self.images = {"agent:1"}
        self.registry = {"agent:2"}
        self.slow_pull = threading.Event()
        self.slow_pull.set()
        self.api_version = "1.51"
        self.containers: dict[str, dict[str, Any]] = {}
        super().__init__(socket)

    def before(self, asked: Asked) -> None:
        if asked.path.endswith("/images/create"):
            self.slow_pull.wait(60)

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/_ping":
            return 200, b"OK", {"Api-Version": self.api_version, "Content-Type": "text/plain"}
        found = re.fullmatch(r"/v(\d+\.\d+)(/.*)", asked.path)
        if found is None:
            return 404, {"message": "page not found"}
        path = found[2]
        if path == "/images/create":
            return self._pull(asked)
        if path == "/containers/create":
            return self._create(asked)
        if image := re.fullmatch(r"/images/(.+)/json", path):
            known = image[1] in self.images
            return (200, {"Id": "sha256:1"}) if known else (404, {"message": f"No such image: {image[1]}"})
        if one := re.fullmatch(r"/containers/([^/]+)(?:/(\w+))?", path):
            return self._container(asked, one[1], one[2] or "")
        return 404, {"message": "page not found"}

    def _pull(self, asked: Asked) -> Reply:
        image = f"{asked.query['fromImage']}:{asked.query['tag']}"
        if image not in self.registry:
            trouble = f"pull access denied for {image}, repository does not exist or may require 'docker login'"
            return (
                200,
                f'{{"status":"Pulling"}}\r\n{{"errorDetail":{{"message":"{trouble}"}},"error":"{trouble}"}}\r\n'.encode(),
            )
        self.images.add(image)
        return (
            200,
            b'{"status":"Pulling from library/agent","id":"2"}\r\n{"status":"Status: Downloaded newer image"}\r\n',
        )

    def _create(self, asked: Asked) -> Reply:
        name, body = asked.query["name"], asked.json
        if body["Image"] not in self.images:
            return 404, {"message": f"No such image: {body['Image']}"}
        for known, one in self.containers.items():
            if one["name"] == name:
                return 409, {
                    "message": f'Conflict. The container name "/{name}" is already in use by container "{known}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                }
        container = secrets.token_hex(32)
        self.containers[container] = {"name": name, "body": body, "Status": "created", "ExitCode": 0}
        return 201, {"Id": container, "Warnings": []}

    def _container(self, asked: Asked, name: str, what: str) -> Reply:
        key = next((key for key, one in self.containers.items() if name in (key, one["name"])), "")
        if not key:
            return 404, {"message": f"No such container: {name}"}
        one = self.containers[key]
        match asked.method, what:
            case "POST", "start":
                if one["Status"] == "running":
                    return 304, None
                ends = one["body"].get("Cmd") == ["false"]
                one |= {"Status": "exited", "ExitCode": 3} if ends else {"Status": "running"}
                return 204, None
            case "POST", "stop":
                if one["Status"] != "running":
                    return 304, None
                one |= {"Status": "exited", "ExitCode": 143, "grace": asked.query["t"]}
                return 204, None
            case "GET", "json":
                state = {"Status": one["Status"], "ExitCode": one["ExitCode"], "OOMKilled": False, "Error": ""}
                return 200, {
                    "Id": key,
                    "Name": f"/{one['name']}",
                    "State": state,
                    "Config": {"Labels": one["body"]["Labels"]},
                }
            case "GET", "logs":
                return 200, frames("hello", "no such agent"), {"Content-Type": "application/vnd.docker.raw-stream"}
            case "DELETE", "":
                del self.containers[key]
                return 204, None
        return 404, {"message": "page not found"}
