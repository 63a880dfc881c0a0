"""How is the HTTP API described? OpenAPI 3.1, made from the models of the ops table."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from knotwork.ops import project_replies, replies, table
from knotwork.ops.flow_replies import Question
from knotwork.web import approvals, hooks, resources, workers
from knotwork.web.routes import EVENT_STREAM, methods

_REF = "#/components/schemas/"
_PROBLEM = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "kind"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened and why."},
        "code": {"type": "string", "description": "Stable, `room.reason`."},
        "kind": {"type": "string"},
        "hint": {"type": "string", "description": "What to do next."},
        "problems": {"type": "array", "items": {"type": "object"}, "description": "Everything that is wrong."},
        "data": {"type": "object"},
        "retry_after_s": {"type": "number"},
        "run": {"type": "string", "description": "Of a request to `/run/…`: the run that it was for."},
    },
}


def document(version: str, url: str = "/") -> dict[str, Any]:
    """Return the whole description as plain data."""
    ops = list(table.TABLE.values())
    wanted = [(op.request, "validation") for op in ops] + [(op.reply, "serialization") for op in ops]
    wanted += [(one, "serialization") for one in (replies.Progress, replies.Chunk, project_replies.Happening, Question)]
    unique: list[Any] = list(dict.fromkeys(wanted))
    names, schema = models_json_schema(unique, ref_template=_REF + "{model}")
    paths = {f"/api/{op.room}/{op.verb}": _path(op, names) for op in ops}
    paths |= (
        _resource_paths(names) | _worker_paths(names) | _plain_paths() | hooks.described() | approvals.described(names)
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Knotwork",
            "version": version,
            "summary": "What may be asked of a node.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "security": [{"token": []}],
        "tags": [{"name": room} for room in dict.fromkeys(op.room for op in ops)],
        "paths": paths,
        "components": {
            "schemas": {**schema.get("$defs", {}), "Problem": _PROBLEM},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": {
                "project": {
                    "name": "Knotwork-Project",
                    "in": "header",
                    "description": "The project to act in; the node's first when left out.",
                    "schema": {"type": "string"},
                }
            },
            "responses": {
                "problem": {
                    "description": "It did not work.",
                    "content": {"application/problem+json": {"schema": {"$ref": f"{_REF}Problem"}}},
                }
            },
        },
    }


def _path(op: table.Op, names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    return {method.lower(): _operation(op, method, names) for method in methods(op)}


def _operation(op: table.Op, method: str, names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {} if op.live else {"application/json": {"schema": names[op.reply, "serialization"]}}
    if op.streams:
        content[EVENT_STREAM] = {
            "schema": {
                "type": "string",
                "description": f"Events `progress`, `chunk`, then `result` ({op.reply.__name__}) or `error` (kind, code, message, hint, detail).",
            }
        }
    operation: dict[str, Any] = {
        "operationId": op.name if method == "POST" else f"{op.name}.get",
        "tags": [op.room],
        "summary": op.summary,
        "description": op.help,
        "parameters": [{"$ref": "#/components/parameters/project"}],
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {"$ref": "#/components/responses/problem"},
        },
        "x-effect": op.effect,
    }
    if method == "POST":
        body: dict[str, Any] = {"schema": names[op.request, "validation"]}
        if op.examples:
            body["examples"] = {
                f"example{number}": {"summary": example.text, "value": example.request}
                for number, example in enumerate(op.examples, 1)
            }
        required = any(info.is_required() for info in op.request.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {"application/json": body}}
    else:
        operation["parameters"] += _query(op)
        operation["responses"]["304"] = {"description": "As the caller has it: the ETag is in If-None-Match."}
    return operation


def _resource_paths(names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return the paths that are named after things, each of which is an op by another name."""
    found: dict[str, Any] = {}
    for row in resources.RESOURCES:
        found.setdefault(row.path, {})[row.method.lower()] = _resource(row, names)
    return found


def _resource(row: resources.Resource, names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    op, filled = table.TABLE[row.op], set(row.parts.values())
    operation = _operation(op, row.method, names)
    operation["operationId"] = f"{row.method.lower()}{row.path.replace('/', '.')}".replace("{", "").replace("}", "")
    operation["tags"] = [row.path.split("/")[2]]
    operation["description"] = f"The op {op.name}. {op.help}"
    of_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": f"The op's {field}.",
        }
        for name, field in row.parts.items()
    ]
    if row.of_node:
        said = "whose it is, when several nodes have one of that name"
        of_path.append({"name": resources.NODE, "in": "query", "schema": {"type": "string"}, "description": said})
    operation["parameters"] = [one for one in operation["parameters"] if one.get("name") not in filled] + of_path
    answers = operation["responses"]
    if row.method == "POST" and filled:
        schema = op.request.model_json_schema(ref_template=_REF + "{model}")
        left = {key: part for key, part in schema["properties"].items() if key not in filled}
        required = [key for key in schema.get("required", []) if key in left]
        body = {"type": "object", "properties": left, "required": required, "additionalProperties": False}
        operation["requestBody"] = {"required": bool(required), "content": {"application/json": {"schema": body}}}
    if row.created:
        answers["201"] = answers["200"] | {"description": "It is stored; its place is in Location."}
        answers["200"] = answers["200"] | {"description": "It was there before."}
    if row.each:
        listed = op.reply.model_json_schema(ref_template=_REF + "{model}")["properties"][row.each]["items"]
        answers["200"] = {"description": "Done.", "content": {"application/json": {"schema": listed}}}
    if row.path == resources.EVENTS:
        told = (
            "Events named after their topic (`feed`, `work`, …), then `end` or `error`; each but these is a Happening."
        )
        answers["200"] = {"description": told, "content": {EVENT_STREAM: {"schema": {"type": "string"}}}}
        answers.pop("304")
    return operation


def _query(op: table.Op) -> list[dict[str, Any]]:
    schema = op.request.model_json_schema(ref_template=_REF + "{model}")
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": part.get("description", ""),
            "schema": {key: value for key, value in part.items() if key != "description"},
        }
        for name, part in schema.get("properties", {}).items()
    ]


def _worker_paths(names: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return the routes for workers in any language, each of which is an op by another name."""
    found = {}
    for path, name in ((workers.CONNECT, "work.connect"), (workers.POLL, "work.claim")):
        operation = _operation(table.TABLE[name], "POST", names)
        found[path] = {"post": operation | {"operationId": path.strip("/").replace("/", "."), "tags": ["v1"]}}
    replies_of = {table.TABLE[name].reply for name in workers.ACTIONS.values()}
    told = sorted((names[reply, "serialization"] for reply in replies_of), key=str)
    found[workers.RESOLVE] = {
        "post": {
            "operationId": "v1.tasks.resolve",
            "tags": ["v1"],
            "summary": "Say something about a task that was polled.",
            "description": "What belongs to each action is what belongs to its op; `id` is that of the path.",
            "parameters": [
                {"$ref": "#/components/parameters/project"},
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"oneOf": [_action(*one) for one in workers.ACTIONS.items()]}}
                },
            },
            "responses": {
                "200": {"description": "Done.", "content": {"application/json": {"schema": {"anyOf": told}}}},
                "default": {"$ref": "#/components/responses/problem"},
            },
        }
    }
    return found


def _action(action: str, name: str) -> dict[str, Any]:
    """Return the body of one action: the request of its op with the action, and without the id, which is in the path."""
    schema = table.TABLE[name].request.model_json_schema(ref_template=_REF + "{model}")
    left_out = {"id", *(workers.RETRY if action == "retry" else ())}
    return {
        "title": action,
        "type": "object",
        "description": f"See the op {name}.",
        "properties": {"action": {"const": action}}
        | {key: part for key, part in schema["properties"].items() if key != "id"},
        "required": ["action", *(key for key in schema.get("required", []) if key not in left_out)],
        "additionalProperties": False,
    }


def _plain_paths() -> dict[str, Any]:
    def path(summary: str, media: str, *, token: bool) -> dict[str, Any]:
        answer = {"description": summary, "content": {media: {"schema": {}}}}
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {"200": answer, "default": {"$ref": "#/components/responses/problem"}},
        }
        return {"get": operation if token else {**operation, "security": []}}

    return {
        "/livez": path("200 while the node is alive.", "application/json", token=False),
        "/readyz": path("200 while the node takes work, else 503.", "application/json", token=False),
        "/metrics": path("Figures for Prometheus.", "text/plain", token=True),
        "/openapi.json": path("This description.", "application/json", token=False),
    }
