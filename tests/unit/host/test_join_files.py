"""Files with which a node joins a NATS: one that others may read is refused, whatever kind of secret it holds."""

from __future__ import annotations

import pytest

from knotwork.config.load import read
from knotwork.config.loaded import Sources
from knotwork.host import boot
from knotwork.host.layout import Layout
from knotwork.sdk.errors import Denied

WAYS = {
    "password": 'user = "knot"\npassword = { file = "secret" }',
    "token": 'token = { file = "secret" }',
    "creds": 'creds = "secret"',
    "nkey_seed": 'nkey_seed = { file = "secret" }',
    "tls": '[nats.tls]\ncert = "cert.pem"\nkey = "secret"',
}


@pytest.mark.parametrize("how", WAYS)
def test_a_secret_file_that_others_may_read_is_refused(tmp_path, how):
    (tmp_path / "knotwork.toml").write_text(f'[nats]\nmode = "join"\nurls = ["nats://127.0.0.1:4222"]\n{WAYS[how]}\n')
    (tmp_path / "cert.pem").write_text("public")
    (tmp_path / "cert.pem").chmod(0o644)
    secret = tmp_path / "secret"
    secret.write_text("s3cret-value")
    nats = boot.Nats(Layout(tmp_path / "data"), None)
    found = read(Sources(files=(tmp_path / "knotwork.toml",)))
    for mode in (0o644, 0o640, 0o602):
        secret.chmod(mode)
        with pytest.raises(Denied, match="holds a secret") as refused:
            nats.endpoint(found, "default", "here/default")
        assert refused.value.code == "trust.key_exposed"
        assert f"chmod 600 {secret}" in refused.value.hint
        assert "s3cret-value" not in str(refused.value)
    secret.chmod(0o600)
    assert nats.endpoint(found, "default", "here/default").urls == ("nats://127.0.0.1:4222",)
