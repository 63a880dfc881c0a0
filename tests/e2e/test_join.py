"""A node joins a NATS that somebody else runs, as the operator wrote it: every way of showing who it is, TLS both ways."""

from __future__ import annotations

import json
import subprocess
import sys

import nkeys
import pytest
from tests.e2e.conftest import WAIT_S, until
from tests.free_port import free_port
from tests.integration.bus.test_connection_credentials import Authority, jwt, pair, tls_text

from knotwork.bus import binary
from knotwork.trust import keys

NODE = """
[executors.echo]
type = "rehearsal"

[targets.here]
type = "local"
command = [{program}, "-m", "knotwork", "up", "--config", "{folder}/agent.toml", "--data-dir", "{folder}/launched"]
capabilities = ["shout"]

[nats]
mode = "join"
"""
AGENT = '[executors.shouter]\ntype = "rehearsal"\ncapabilities = ["shout"]\n'
PASSWORD = "s3cret-of-the-operator"


def written(folder):
    return NODE.replace("{program}", json.dumps(sys.executable)).replace("{folder}", str(folder))


@pytest.fixture
def foreign(tmp_path):
    """Start nats-servers with JetStream and any further configuration; they end with the test."""
    started = []

    def start(extra):
        folder = tmp_path / f"nats{len(started)}"
        folder.mkdir()
        port = free_port()
        conf = folder / "server.conf"
        conf.write_text(
            f'host: 127.0.0.1\nport: {port}\nserver_name: n\nlog_file: "{folder}/log"\n'
            f'jetstream {{ store_dir: "{folder}/store", max_file_store: 1GB }}\n{extra}\n'
        )
        started.append(subprocess.Popen([binary.find().path, "-c", str(conf)]))
        log = folder / "log"
        until(lambda: started[-1].poll() is not None or (log.exists() and "Server is ready" in log.read_text()))
        assert started[-1].poll() is None, log.read_text()
        return port

    yield start
    for process in started:
        process.kill()
        process.wait(WAIT_S)


def by_password_and_mutual_tls(foreign, folder):
    authority = Authority(folder)
    cert, key = authority.issue("server")
    authority.issue("client")
    port = foreign(
        tls_text(authority, cert, key, "\nverify: true") + f'\nauthorization {{ user: "knot", password: "{PASSWORD}" }}'
    )
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o600)
    return (
        f'urls = ["tls://127.0.0.1:{port}"]\nuser = "knot"\npassword = {{ file = "password" }}\n'
        '[nats.tls]\nca = "ca.pem"\ncert = "client.pem"\nkey = "client.key"\n'
    )


def by_token_over_tls_at_the_second_address(foreign, folder):
    authority = Authority(folder)
    cert, key = authority.issue("server")
    port = foreign(tls_text(authority, cert, key) + f'\nauthorization {{ token: "{PASSWORD}" }}')
    return (
        f'urls = ["tls://127.0.0.1:{free_port()}", "tls://127.0.0.1:{port}"]\ntoken = {{ env = "NATS_TOKEN" }}\n'
        '[nats.tls]\nca = "ca.pem"\n'
    )


def by_nkey_through_a_web_socket(foreign, folder):
    seed, web = keys.generate(), free_port()
    foreign(
        f"authorization {{ users: [ {{ nkey: {seed.public} }} ] }}\n"
        f"websocket {{ host: 127.0.0.1, port: {web}, no_tls: true }}"
    )
    (folder / "node.nk").write_text(seed.seed)
    (folder / "node.nk").chmod(0o600)
    return f'urls = ["ws://127.0.0.1:{web}"]\nnkey_seed = {{ file = "node.nk" }}\n'


def by_creds_file(foreign, folder):
    operator, account, user = (
        pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT), pair(nkeys.PREFIX_BYTE_USER)
    )  # fmt: skip
    system = nkeys.from_seed(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_ACCOUNT))
    names = {one: one.public_key.decode() for one in (operator, account, system, user)}
    everything = {"subs": -1, "data": -1, "payload": -1}
    limits = {**everything, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    limits |= {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}

    def claims(issuer, subject, kind, **nats):
        said = {"iss": names[issuer], "sub": names[subject], "name": kind, "nats": {**nats, "type": kind, "version": 2}}
        return jwt(issuer, said)

    accounts = {names[account]: claims(operator, account, "account", limits=limits)}
    accounts[names[system]] = claims(operator, system, "account")
    port = foreign(
        f'operator: "{claims(operator, operator, "operator")}"\nsystem_account: {names[system]}\nresolver: MEMORY\n'
        f"resolver_preload {{ {', '.join(f'{name}: {text}' for name, text in accounts.items())} }}"
    )
    (folder / "user.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{claims(account, user, 'user', pub={}, sub={}, **everything)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    (folder / "user.creds").chmod(0o600)
    return f'urls = ["nats://127.0.0.1:{port}"]\ncreds = "user.creds"\n'


@pytest.mark.parametrize(
    "way",
    [
        by_password_and_mutual_tls,
        by_token_over_tls_at_the_second_address,
        by_nkey_through_a_web_socket,
        by_creds_file,
    ],
)
def test_a_node_joins_as_it_is_written(nodes, foreign, way):
    node = nodes.node()
    node.write(written(node.folder) + way(foreign, node.folder))
    (node.folder / "agent.toml").write_text(AGENT)
    node.up(NATS_TOKEN=PASSWORD)
    assert node.invoke("echo", {"far": [1, "ä"]}) == {"far": [1, "ä"]}
    assert node.run("invoke", "echo", "by the command line")[:2] == (0, "by the command line\n")
    run = node.ask("task.submit", target="echo", input="stored there")["id"]
    assert node.ask("task.await", id=run, timeout_s=WAIT_S)["output"] == "stored there"
    run = node.ask("task.submit", capability="shout", input="by an agent that joins in the same way")["id"]
    assert node.ask("task.await", id=run, timeout_s=120.0)["state"] == "completed"
    assert PASSWORD not in node.log
    assert "Traceback" not in node.log


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ('publish: { deny: "$JS.API.>" }', "$JS.API."),
        ('subscribe: { deny: "_NODE.>" }', "_NODE."),
        ('subscribe: { deny: "op.>" }', "op."),
    ],
)
def test_a_key_that_lacks_a_right_ends_the_node_and_names_the_right(nodes, foreign, rights, missing):
    seed = keys.generate()
    port = foreign(f"authorization {{ users: [ {{ nkey: {seed.public}, permissions: {{ {rights} }} }} ] }}")
    node = nodes.node()
    node.write(f'{written(node.folder)}urls = ["nats://127.0.0.1:{port}"]\nnkey_seed = {{ file = "node.nk" }}\n')
    (node.folder / "node.nk").write_text(seed.seed)
    (node.folder / "node.nk").chmod(0o600)
    node.up(wait_s=0)
    assert node.ended(WAIT_S * 2) == 77
    assert "bus.denied" in node.log
    assert missing.lower() in node.log.lower()
    assert "Traceback" not in node.log


def test_a_joining_key_that_others_may_read_is_refused(nodes, foreign):
    seed = keys.generate()
    port = foreign(f"authorization {{ users: [ {{ nkey: {seed.public} }} ] }}")
    node = nodes.node()
    node.write(f'{written(node.folder)}urls = ["nats://127.0.0.1:{port}"]\nnkey_seed = {{ file = "node.nk" }}\n')
    (node.folder / "node.nk").write_text(seed.seed)
    (node.folder / "node.nk").chmod(0o644)
    node.up(wait_s=0)
    assert node.ended() == 77
    assert "trust.key_exposed" in node.log
    assert seed.seed not in node.log


def test_the_command_line_trusts_what_ssl_cert_file_names(nodes, foreign):
    """At a server whose certificate no authority of the system vouches for, and without a node of its own."""
    node = nodes.node()
    node.write(written(node.folder) + by_token_over_tls_at_the_second_address(foreign, node.folder))
    node.up(NATS_TOKEN=PASSWORD)
    url = node.json("status")["bus"]["url"].rpartition("//")[2].rpartition(" ")[2]
    far = {"KNOTWORK_DATA_DIR": str(node.folder / "elsewhere"), "KNOTWORK_URL": f"tls://{PASSWORD}@{url}"}
    assert node.run("invoke", "echo", "far", **far, SSL_CERT_FILE=str(node.folder / "ca.pem"))[:2] == (0, "far\n")
    code, error = node.refused("invoke", "echo", "far", **far)
    assert (code, error["code"]) == (69, "bus.unreachable")
    assert PASSWORD not in json.dumps(error)
