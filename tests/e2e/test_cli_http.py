"""The HTTP door of a real node, and the command line going through it where NATS gives local doors no key."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from tests.e2e.conftest import WAIT_S, until

CONFIG = """
[node]
name = "one"
[web]
allowed_origins = ["https://friend.example"]
[executors.shout]
type = "process"
command = ["tr", "a-z", "A-Z"]
[executors.sleeper]
type = "process"
command = ["sleep", "600"]
[executors.lines]
type = "python"
function = "./lines.py:lines"
[telemetry.metrics]
type = "prometheus"
"""
LINES = "import time\n\n\ndef lines(value):\n    for number in range(value):\n        yield number\n        time.sleep(0.01)\n"


@pytest.fixture(scope="module")
def node(shared_nodes):
    made = shared_nodes.node(CONFIG, "one")
    made.write(LINES, "lines.py")
    return made.up()


@pytest.fixture(scope="module")
def joined(shared_nodes, node):
    """A node that joined the other's NATS: it has no key to hand to local doors."""
    seed = node.data / "keys" / "node-default.nk"
    made = shared_nodes.node(
        f'[node]\nname = "two"\n[nats]\nmode = "join"\nurls = ["{node.about["url"]}"]\n'
        f'nkey_seed = {{ file = "{seed}" }}\n'
        + CONFIG.partition('name = "one"')[2].replace("shout", "cry").replace("sleeper", "idler"),
        "two",
    )
    made.write(LINES, "lines.py")
    return made.up()


def test_only_with_the_token_the_right_name_and_no_foreign_page(node):
    good = {"authorization": f"Bearer {node.token}"}
    assert node.http("GET", "/api/node/status", **good).status == 200
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {node.token}"},
        {"authorization": "Bearer "},
    ):
        answer = node.http("GET", "/api/node/status", **headers)
        assert (answer.status, answer.json["code"]) == (401, "web.no_token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for host in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"):
        answer = node.http("GET", "/api/node/status", host=host, **good)
        assert (answer.status, answer.json["code"]) == (421, "web.bad_host"), host
    answer = node.http("POST", "/api/node/reload", b"{}", origin="https://evil.example", **good)
    assert (answer.status, answer.json["code"]) == (403, "web.bad_origin")
    assert "access-control-allow-origin" not in answer.headers
    answer = node.http("GET", "/api/node/status", origin="https://friend.example", **good)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://friend.example")
    for path in ("/livez", "/readyz", "/openapi.json"):
        assert node.get(path).status == 200
    assert node.get("/metrics").status == 401


def test_errors_are_problem_documents(node):
    good = {"authorization": f"Bearer {node.token}", "content_type": "application/json"}
    cases = [
        ("POST", "/api/agents/show", b'{"target": "nobody"}', 404, "agent.not_found"),
        ("POST", "/api/agents/invoke", b"{not json", 422, "wire.not_json"),
        ("POST", "/api/agents/invoke", b'{"input": 1, "capability": "a.b"}', 422, "ops.bad_request"),
        ("POST", "/api/agents/invoke", b'{"inptu": 1}', 422, "ops.bad_request"),
        (
            "POST",
            "/api/agents/invoke",
            b'{"target": "shout", "input": "' + b"x" * 9_000_000 + b'"}',
            413,
            "ops.request_too_large",
        ),
        ("GET", "/api/no/such", None, 404, "web.no_such_path"),
        ("GET", "/api/node/reload", None, 405, "web.no_such_path"),
        ("POST", "/api/node/events", b"{}", 422, "web.stream_only"),
    ]
    for method, path, body, status, code in cases:
        answer = node.http(method, path, body, **good)
        assert (answer.status, answer.json["code"]) == (status, code), answer.body[:300]
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "kind"} <= set(answer.json)
        assert answer.json["status"] == status
    unknown = node.http("POST", "/api/agents/invoke", b'{"inptu": 1}', **good).json
    assert any(row["field"] == "inptu" and "input" in row["hint"] for row in unknown["problems"])


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in references(part)]
    return [found for part in value for found in references(part)] if isinstance(value, list) else []


def test_the_description_is_openapi_3_1_and_true(node):
    document = node.get("/openapi.json").json
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = []
    for path, item in document["paths"].items():
        assert path.startswith("/")
        for method, operation in item.items():
            assert method in ("get", "post", "put", "patch", "delete", "head")
            if path.startswith("/api/"):
                names.append(operation["operationId"])
            assert operation["responses"]
            for status, response in operation["responses"].items():
                assert status == "default" or 100 <= int(status) < 600
                assert "$ref" in response or response["description"]
    assert len(names) == len(set(names))
    listed = {path for path in document["paths"] if path.startswith("/api/")}
    assert {"/api/node/status", "/api/agents/invoke", "/api/config/plan", "/api/plugin/restart"} <= listed
    for path in ("/api/node/status", "/api/agents/list", "/api/plugin/list", "/api/nodes/list", "/api/config/show"):
        answer = node.http("GET", path, authorization=f"Bearer {node.token}")
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**document, **schema}).validate(answer.json)


def test_read_ops_take_queries(node):
    good = {"authorization": f"Bearer {node.token}"}
    rows = node.http("GET", "/api/agents/list?capability=shout", **good).json["agents"]
    assert [row["agent"] for row in rows] == ["shout"]
    assert node.http("GET", "/api/agents/list?capability=shout&capability=x", **good).status == 422
    assert node.http("GET", "/api/agents/list?capabilty=shout", **good).status == 422


def test_pieces_come_as_server_sent_events(node):
    answer = node.http(
        "POST", "/api/agents/invoke", b'{"target": "lines", "input": 3, "stream": true}',
        authorization=f"Bearer {node.token}", accept="text/event-stream",
    )  # fmt: skip
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split(b"\n") for block in answer.body.strip().split(b"\n\n")]
    kinds = [lines[0].removeprefix(b"event: ") for lines in events]
    assert kinds == [b"chunk"] * 3 + [b"result"]
    assert [json.loads(lines[1].removeprefix(b"data: "))["data"] for lines in events[:3]] == [0, 1, 2]


def test_a_caller_that_goes_away_stops_the_work(node):
    connection = node.connect()
    body = b'{"target": "sleeper", "input": "x"}'
    connection.request("POST", "/api/agents/invoke", body, {"authorization": f"Bearer {node.token}"})
    until(lambda: node.status()["running"] == 1)
    connection.close()
    until(lambda: node.status()["running"] == 0)


def test_metrics(node):
    node.invoke("shout", "counted")

    def page():
        return node.http("GET", "/metrics", authorization=f"Bearer {node.token}")

    assert page().headers["content-type"].startswith("text/plain")
    until(lambda: b"knotwork_invocations_total" in page().body)  # told a moment after the answer


# -- the command line through this door ------------------------------------------------------------------------------


def test_verbs_work_on_a_joined_node(joined):
    assert joined.about["seed_file"] == ""
    assert joined.json("status")["node"] == "two"
    assert joined.json("health")["ready"] is True
    until(lambda: sorted(row["node"] for row in joined.json("nodes")["nodes"]) == ["one", "two"])
    assert joined.run("invoke", "cry", "through") == (0, "THROUGH\n", "")
    assert joined.run("invoke", "one/shout", "across") == (0, "ACROSS\n", "")
    big = joined.write("x" * 9_000_000, "big.txt")
    code, error = joined.refused("invoke", "cry", f"@{big}")
    assert (code, error["code"]) == (1, "ops.request_too_large")
    code, out, _ = joined.run("invoke", "two/lines", "3", "--stream", "-o", "jsonl")
    assert code == 0
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["chunk"] * 3 + ["result"]


def test_its_errors_keep_their_exit_codes(joined):
    code, wire = joined.refused("agents", "show", "nobody")
    assert (code, wire["code"]) == (1, "agent.not_found")
    code, wire = joined.refused("invoke", "idler", "x", "--timeout", "200ms")
    assert (code, wire["kind"]) == (75, "timed_out")
    code, wire = joined.refused("invoke", "-c", "a.b", "x")
    assert (code, wire["code"]) == (2, "ops.bad_request")
    assert wire["detail"]["problems"]
    joined.write(joined.file.read_text() + "[node2]\nx = 1\n")
    code, wire = joined.refused("reload")
    assert code == 78
    assert wire["detail"]["problems"][0]["line"] > 1
    joined.write(joined.file.read_text().partition("[node2]")[0])
    assert joined.run("reload")[0] == 0


def test_events_and_ctrl_c(joined):
    watching = joined.start("events", "config.*", "--limit", "1", "-o", "jsonl")

    def heard() -> bool:
        joined.ask("node.reload")
        return watching.poll() is not None

    until(heard)
    out, err = watching.communicate(timeout=WAIT_S)
    assert watching.returncode == 0, err
    assert json.loads(out.splitlines()[0])["name"].startswith("config.")
    call = joined.start("invoke", "idler", "x")
    until(lambda: joined.status()["running"] == 1)
    call.send_signal(signal.SIGINT)
    _, err = call.communicate(timeout=WAIT_S)
    assert call.returncode == 130
    assert "Traceback" not in err
    until(lambda: joined.status()["running"] == 0)


def test_without_any_door_it_says_so(shared_nodes, node):
    seed = node.data / "keys" / "node-default.nk"
    closed = shared_nodes.node(
        f'[node]\nname = "three"\n[web]\nenabled = false\n[nats]\nmode = "join"\nurls = ["{node.about["url"]}"]\n'
        f'nkey_seed = {{ file = "{seed}" }}\n',
        "three",
    ).up()
    code, wire = closed.refused("status")
    assert (code, wire["code"]) == (69, "cli.no_door")
    shown = node.json("status", "--on", "three")  # the mesh reaches it all the same
    assert shown["node"] == "three"
    assert closed.run("stop")[0] == 0  # and a signal, too
    assert closed.ended() == 0


def test_of_several_nodes_by_an_address_the_one_that_is_meant_must_be_named(node, joined):
    there = ("--url", node.about["url"], "--creds", node.about["seed_file"])
    for words in (("stop",), ("drain",), ("reload",), ("config", "rollback", "1")):
        code, wire = node.refused(*words, *there)
        assert (code, wire["code"]) == (2, "cli.which_node"), words
        assert "one, two" in wire["message"]
    assert [one.status()["state"] for one in (node, joined)] == ["running", "running"]
    for words, state in ((("drain",), "draining"), (("drain", "--resume"), "running")):
        node.json(*words, "--on", "two", *there)
        assert [one.status()["state"] for one in (node, joined)] == ["running", state]


def test_stop_through_the_door_waits_until_it_is_gone(shared_nodes, node):
    seed = node.data / "keys" / "node-default.nk"
    made = shared_nodes.node(
        f'[node]\nname = "four"\n[nats]\nmode = "join"\nurls = ["{node.about["url"]}"]\nnkey_seed = {{ file = "{seed}" }}\n',
        "four",
    ).up()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(made.run, "stop").result(WAIT_S)[0] == 0
    assert made.ended() == 0
    until(lambda: "four" not in [row["node"] for row in node.ask("nodes.list", online=True)["nodes"]])
