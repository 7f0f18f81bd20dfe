"""Signatures: whose they must be, and what they cover."""

import json
import shutil
import subprocess

import pytest

from dlink.runtime import BadInput, Untrusted
from dlink.trt_runtime.manifest import manifest_of, read_bytes, signature_of
from dlink.trt_runtime.plan import read_plan
from tests.support.command import call
from tests.support.plans import checked, write

signing = pytest.importorskip("dlink.trt_runtime.signing", reason="needs cryptography: pip install 'dlink[test]'")


@pytest.fixture
def signed(tmp_path):
    path = write(tmp_path)
    public = signing.make_keys(tmp_path / "key")
    signing.sign(path, read_bytes(path), signing.read_private(tmp_path / "key"))
    return path, public


def test_a_signed_plan_is_taken_by_any_of_the_keys(signed, tmp_path):
    path, public = signed
    other = signing.make_keys(tmp_path / "other")
    assert read_plan(path, [public])
    assert read_plan(path, [other, public])
    with pytest.raises(Untrusted, match=r"its manifest is not as \S+other.pub signed it"):
        read_plan(path, [other])


def test_an_unsigned_plan_is_refused_where_a_key_is_given(tmp_path):
    public = signing.make_keys(tmp_path / "key")
    with pytest.raises(
        Untrusted, match=r"is not signed, and a signature by \S+key.pub is required; sign it: dlink-sign"
    ):
        read_plan(write(tmp_path), [public])


def test_a_signature_covers_every_byte_of_the_manifest_and_with_its_hash_the_plan(signed):
    path, public = signed
    data = bytearray(read_bytes(path))
    for at in range(0, len(data), 37):
        changed = data.copy()
        changed[at] ^= 1
        manifest_of(path).write_bytes(changed)
        with pytest.raises(Untrusted):
            read_plan(path, [public])
    manifest_of(path).write_bytes(data)
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(ValueError, match=r"damaged"):
        read_plan(path, [public])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"signature": 5}', b'{"signature": "zz"}', b"[" * 4000])
def test_what_is_no_signature_is_refused(data, signed):
    path, public = signed
    signature_of(path).write_bytes(data)
    with pytest.raises(Untrusted):
        read_plan(path, [public])


def test_a_signature_of_the_bare_manifest_is_none(signed, tmp_path):
    """The key may sign other things, and none of them must pass for a manifest."""
    path, public = signed
    key = signing.read_private(tmp_path / "key")
    signature_of(path).write_text(json.dumps({"signature": key.sign(read_bytes(path)).hex()}))
    with pytest.raises(Untrusted):
        read_plan(path, [public])


def test_keys_are_for_their_owner_alone_and_never_replaced(tmp_path):
    signing.make_keys(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(BadInput, match=r"is there already; keys are not replaced"):
        signing.make_keys(tmp_path / "key")


def test_other_files_are_no_keys(tmp_path, signed):
    path, public = signed
    (tmp_path / "text").write_text("no key")
    with pytest.raises(BadInput, match=r"text: not a public key in PEM"):
        read_plan(path, [tmp_path / "text"])
    with pytest.raises(BadInput, match=r"not a private key in PEM"):
        signing.read_private(public)


def test_dlink_sign_makes_keys_and_signs(tmp_path):
    path = write(tmp_path, verdict=checked())
    result = call("sign", "--new", tmp_path / "fleet", path)
    assert "roads.plan signed" in result.stdout
    assert read_plan(path, [tmp_path / "fleet.pub"])
    assert "no verdict" not in result.stderr
    assert "has no verdict yet" in call("sign", tmp_path / "fleet", write(tmp_path)).stderr
    assert "PLAN is missing" in call("sign", tmp_path / "fleet", code=1).stderr
    path.write_bytes(b"changed")
    assert "truncated" in call("sign", tmp_path / "fleet", path, code=1).stderr


def test_openssls_keys_are_taken_encrypted_or_not(tmp_path):
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl: apt-get install openssl")
    path, key = write(tmp_path), tmp_path / "key"
    made = subprocess.run([openssl, "genpkey", "-algorithm", "ed25519", "-out", key], capture_output=True)
    if made.returncode:
        pytest.skip("needs openssl: 1.1.1 or newer, with Ed25519")
    subprocess.run([openssl, "pkey", "-in", key, "-pubout", "-out", tmp_path / "pub"], check=True)
    secret = tmp_path / "secret"
    subprocess.run([openssl, "pkey", "-in", key, "-aes256", "-passout", "pass:road", "-out", secret], check=True)
    for name, given in ((key, {}), (secret, {"env": {"DLINK_KEY_PASSWORD": "road"}}), (secret, {"input": "road\n"})):
        signature_of(path).unlink(missing_ok=True)
        call("sign", name, path, **given)
        assert read_plan(path, [tmp_path / "pub"])
    assert "the password is another" in call("sign", secret, path, code=1, env={"DLINK_KEY_PASSWORD": "rail"}).stderr
    rsa = tmp_path / "rsa"
    subprocess.run([openssl, "genpkey", "-algorithm", "RSA", "-out", rsa], check=True, capture_output=True)
    assert "another kind than Ed25519" in call("sign", rsa, path, code=1).stderr
