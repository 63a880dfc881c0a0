"""Every way of showing who one is works, and each wrong one is refused by name."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import ipaddress
import json
import ssl
import time
from pathlib import Path

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.free_port import free_port

from knotwork.bus import server_talk
from knotwork.bus.away import why_away
from knotwork.bus.connection import open_connection
from knotwork.bus.endpoint import Endpoint, Tls
from knotwork.sdk.errors import ConfigInvalid, Denied, KnotworkError, Unreachable
from knotwork.trust import keys

PAIR = keys.generate()
AUTH = {
    "password": (
        'authorization { user: "knot", password: "s3cret ;$\'x" }',
        {"user": "knot", "password": "s3cret ;$'x"},
    ),
    "token": ('authorization { token: "t0ken" }', {"token": "t0ken"}),
    "nkey": (f"authorization {{ users: [ {{ nkey: {PAIR.public} }} ] }}", {"seed": PAIR.seed}),
}
WRONG = {
    "password": [{"user": "knot", "password": "no"}, {"user": "who", "password": "no"}, {}, {"token": "no"}],
    "token": [{"token": "no"}, {}, {"user": "t0ken"}],
    "nkey": [{"seed": keys.generate().seed}, {}, {"token": "no"}],
}


@pytest.mark.parametrize("way", AUTH)
async def test_right_credentials_work_and_wrong_ones_are_denied(make_server, connect, way):
    text, right = AUTH[way]
    server = await make_server(text)
    connection = await connect(server.url, **right)
    await connection.round_trip()
    for wrong in WRONG[way]:
        with pytest.raises(Denied) as caught:
            await connect(server.url, **wrong)
        assert caught.value.code == "bus.denied"
        assert caught.value.hint
        for secret in (wrong.get("password"), wrong.get("token"), wrong.get("seed")):
            assert secret is None or len(secret) < 5 or secret not in str(caught.value)


async def test_who_is_too_slow_to_show_its_credentials_is_not_denied(make_server, connect):
    """As on a machine that stands still for seconds. The server that answers us says what the real one said."""
    server = await make_server('authorization { token: "right", timeout: 0.1 }')
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    info, said = await reader.readline(), await reader.readline()
    writer.close()
    assert b"Timeout" in said

    async def answer(reader, writer) -> None:
        writer.write(info)
        await reader.readline()
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as late:
        port = late.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable) as caught:
            await connect(f"nats://127.0.0.1:{port}", token="right")
        assert caught.value.code == "bus.unreachable"
        with pytest.raises(OSError, match="Timeout"):
            async with server_talk.open_line("127.0.0.1", port, keys.generate().seed, timeout_s=30):
                pass


async def test_denied_is_a_state_that_ends_when_the_right_is_given(make_server, connect, until):
    server = await make_server(AUTH["token"][0])
    states: list[str] = []
    connection = await connect(server.url, on_state=states.append, wait_first=False, token="later")
    await until(lambda: connection.state == "denied")
    with pytest.raises(Unreachable) as caught:
        connection.send("x", b"")
    assert "refuses" in caught.value.message
    told = why_away(connection)
    assert told is not None
    assert (told.code, bool(told.hint)) == ("bus.denied", True)
    await server.kill()
    server.extra = 'authorization { token: "later" }'
    await server.start()
    await until(lambda: connection.state == "connected")
    await server.kill()
    server.extra = AUTH["token"][0]
    await server.start()
    await until(lambda: connection.state == "denied")
    assert states[0] == "denied"


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": "SUnonsense"},
        {"seed": "x" * 5000},
        {"creds": "/nowhere/at/all.creds"},
        {"creds": "GARBAGE"},
        {"creds": "BINARY"},
        {"tls": Tls(ca="/nowhere/ca.pem")},
    ],
)
async def test_credentials_that_cannot_be_used_are_told_as_such(server, connect, until, tmp_path, settings):
    if settings.get("creds") in {"GARBAGE", "BINARY"}:
        path = tmp_path / "bad.creds"
        path.write_bytes(b"hello\n" if settings["creds"] == "GARBAGE" else bytes(range(256)))
        settings = {"creds": str(path)}
    with pytest.raises(ConfigInvalid) as caught:
        await connect(server.url, **settings)
    assert caught.value.code in {"bus.bad_credentials", "bus.bad_tls"}
    assert settings.get("seed", "?") not in str(caught.value)
    connection = await connect(server.url, wait_first=False, **settings)  # a node that runs goes on trying
    await until(lambda: connection.last_error != "")
    assert connection.state == "reconnecting"


def test_addresses_are_checked():
    for url in ("http://x:1", "nats://", "nats://x:99999", "nats://x:0", "", "x", "nats://[::1", "nats://x:abc"):
        with pytest.raises(ConfigInvalid) as caught:
            asyncio.run(_open(Endpoint((url,))))
        assert caught.value.code == "bus.bad_url"
    with pytest.raises(ConfigInvalid):
        asyncio.run(_open(Endpoint(())))


async def _open(endpoint: Endpoint) -> None:
    async with open_connection(endpoint):
        pass


async def test_what_is_not_permitted_can_be_seen(make_server, connect, until):
    server = await make_server(
        'authorization { users: [ { user: a, password: a, permissions: { publish: "ok.>", subscribe: "_INBOX.>" } } ] }'
    )
    connection = await connect(server.url, user="a", password="a")
    connection.send("secret.x", b"")
    await until(lambda: "permissions violation" in connection.last_error.lower())
    assert "secret.x" in connection.last_error
    await connection.listen("secret.>", lambda message: None)
    await until(lambda: "secret.>" in connection.last_error)
    connection.send("ok.x", b"")
    assert connection.state == "connected"
    assert connection.reconnects == 0


# -- certificates ----------------------------------------------------------------------------------------------------


class Authority:
    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign(self.key, name, ca=True)
        self.file = str(self._write(f"{name}.pem", self.cert.public_bytes(serialization.Encoding.PEM)))

    def issue(self, name: str, host: str = "127.0.0.1") -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._sign(key, name, host=host)
        pem = serialization.Encoding.PEM
        plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return (
            str(self._write(f"{name}.pem", cert.public_bytes(pem))),
            str(self._write(f"{name}.key", plain)),
        )

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600 if name.endswith(".key") else 0o644)
        return path

    def _sign(self, key, name: str, *, ca: bool = False, host: str = "") -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if ca else self.cert.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                    key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
        )  # fmt: skip
        if host:
            try:
                name_: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
            except ValueError:
                name_ = x509.DNSName(host)
            builder = builder.add_extension(x509.SubjectAlternativeName([name_]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def tls_text(authority: Authority, cert: str, key: str, extra: str = "") -> str:
    return f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.file}", timeout: 60 {extra} }}'


@pytest.mark.parametrize("first", [False, True])
async def test_tls_with_an_authority_of_ones_own(make_server, connect, tmp_path, first):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    cert, key = authority.issue("server")
    server = await make_server(tls_text(authority, cert, key, "\nhandshake_first: true" if first else ""))
    url = server.url.replace("nats://", "tls://")
    connection = await connect(url, tls=Tls(ca=authority.file, handshake_first=first))
    await connection.round_trip()
    with pytest.raises(Unreachable) as caught:
        await connect(url, tls=Tls(ca=stranger.file, handshake_first=first))
    assert "certificate" in caught.value.message.lower()
    assert "[nats.tls]" in caught.value.hint  # the server is there: it is no use to look whether it runs
    with pytest.raises(Unreachable):  # an unknown authority is not trusted by default
        await connect(url, tls=Tls(handshake_first=first))


async def test_credentials_refused_over_tls_are_told_in_our_words_alone(make_server, connect, tmp_path, caplog):
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    server = await make_server(tls_text(authority, cert, key) + '\nauthorization { token: "t" }')
    with pytest.raises(Denied):
        await connect(server.url.replace("nats://", "tls://"), token="no", tls=Tls(ca=authority.file))
    await (await connect(server.url.replace("nats://", "tls://"), token="t", tls=Tls(ca=authority.file))).round_trip()
    assert "eof_received" not in caplog.text  # asyncio's own words for a link over TLS that ended


async def test_tls_checks_the_name(make_server, connect, tmp_path):
    authority = Authority(tmp_path)
    cert, key = authority.issue("server", host="hub.example")
    server = await make_server(tls_text(authority, cert, key))
    url = server.url.replace("nats://", "tls://")
    with pytest.raises(Unreachable) as caught:
        await connect(url, tls=Tls(ca=authority.file))
    assert "certificate" in caught.value.message.lower()
    await (await connect(url, tls=Tls(ca=authority.file, hostname="hub.example"))).round_trip()


async def test_mutual_tls(make_server, connect, tmp_path, until, caplog):
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    cert, key = authority.issue("server")
    mine, mine_key = authority.issue("client")
    theirs, theirs_key = stranger.issue("theirs")
    server = await make_server(tls_text(authority, cert, key, "\nverify: true"))
    url = server.url.replace("nats://", "tls://")
    connection = await connect(url, tls=Tls(ca=authority.file, cert=mine, key=mine_key))
    await connection.round_trip()
    for wrong in (Tls(ca=authority.file), Tls(ca=authority.file, cert=theirs, key=theirs_key)):
        with pytest.raises(KnotworkError) as caught:
            await connect(url, tls=wrong)
        assert caught.value.code in {"bus.unreachable", "bus.denied"}
        assert "[nats" in caught.value.hint
    with pytest.raises(ConfigInvalid) as invalid:  # a key of another certificate
        await connect(url, tls=Tls(ca=authority.file, cert=mine, key=key))
    assert invalid.value.code == "bus.bad_tls"
    await server.kill()
    await server.start()
    await until(lambda: connection.reconnects >= 1 and connection.state == "connected")
    await connection.round_trip()
    await connect(f"tls://127.0.0.1:{free_port()}", wait_first=False)
    await until(lambda: "that the server runs" in caplog.text)
    assert "eof_received" not in caplog.text  # asyncio's own words for a link over TLS that ended


async def test_a_server_that_wants_tls_is_not_spoken_to_in_the_clear(make_server, connect, tmp_path):
    authority = Authority(tmp_path)
    cert, key = authority.issue("server")
    server = await make_server(tls_text(authority, cert, key) + '\nauthorization { token: "t" }')
    with pytest.raises((Unreachable, Denied)):
        await connect(server.url, token="t")


@pytest.mark.parametrize(("scheme", "tls"), [("tls", None), ("tls", Tls()), ("nats", Tls())])
async def test_a_server_without_tls_is_told_nothing_where_tls_is_wanted(make_server, connect, scheme, tls):
    """Who stands in between can take the offer of TLS away: credentials must not be said then."""
    server = await make_server('authorization { token: "t0ken" }')
    asked = asyncio.Queue()

    async def between(reader, writer) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(await theirs.readline())
        asked.put_nowait(await reader.read(4096))
        writer.close()
        ours.close()

    async with await asyncio.start_server(between, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable) as caught:
            await connect(f"{scheme}://127.0.0.1:{port}", token="t0ken", tls=tls)
        assert await asked.get() == b""
    assert "speaks no TLS" in caught.value.hint
    await (await connect(server.url, token="t0ken")).round_trip()


def test_unreadable_certificates_are_named(tmp_path):
    from knotwork.bus.endpoint import tls_context

    bad = tmp_path / "bad.pem"
    bad.write_bytes(b"\x00\xff not pem")
    with pytest.raises(ConfigInvalid) as caught:
        tls_context(Tls(ca=str(bad)))
    assert "bad.pem" in caught.value.message
    assert isinstance(tls_context(Tls()), ssl.SSLContext)


# -- a user's creds file (JWT) ---------------------------------------------------------------------------------------


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(signer, claims: dict) -> str:
    """Sign NATS claims the way `nsc` does."""
    claims = {"iat": int(time.time()), **claims}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).rstrip(b"=").decode()
    head = _b64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    body = _b64(json.dumps(claims).encode())
    return f"{head}.{body}.{_b64(signer.sign(f'{head}.{body}'.encode()))}"


def pair(prefix: int):
    return nkeys.from_seed(nkeys.encode_seed(hashlib.sha256(bytes([prefix, 1])).digest(), prefix))


async def test_a_creds_file(make_server, connect, tmp_path):
    operator, account, user = (
        pair(nkeys.PREFIX_BYTE_OPERATOR), pair(nkeys.PREFIX_BYTE_ACCOUNT), pair(nkeys.PREFIX_BYTE_USER)
    )  # fmt: skip
    names = {one: one.public_key.decode() for one in (operator, account, user)}
    everything = {"subs": -1, "data": -1, "payload": -1}
    operator_jwt = jwt(
        operator,
        {"iss": names[operator], "sub": names[operator], "name": "o", "nats": {"type": "operator", "version": 2}},
    )
    limits = {**everything, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    account_jwt = jwt(
        operator,
        {
            "iss": names[operator],
            "sub": names[account],
            "name": "a",
            "nats": {"limits": limits, "type": "account", "version": 2},
        },
    )
    user_jwt = jwt(
        account,
        {
            "iss": names[account],
            "sub": names[user],
            "name": "u",
            "nats": {"pub": {}, "sub": {}, **everything, "type": "user", "version": 2},
        },
    )
    server = await make_server(
        f'operator: "{operator_jwt}"\nresolver: MEMORY\nresolver_preload {{ {names[account]}: "{account_jwt}" }}',
        jetstream=False,
    )
    creds = tmp_path / "user.creds"
    text = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{{}}\n------END USER NKEY SEED------\n"
    )
    creds.write_text(text.format(user.seed.decode()))
    await (await connect(server.url, creds=str(creds))).round_trip()
    creds.write_text(text.format(keys.generate().seed))
    with pytest.raises(Denied) as caught:
        await connect(server.url, creds=str(creds))
    assert caught.value.code == "bus.denied"
