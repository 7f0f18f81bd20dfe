"""Signs plans and verifies signatures: Ed25519 over the manifest, which holds the plan's hash. Needs `cryptography`.

A signature is `roads.plan.json.sig`, JSON with the public key and the signature in hexadecimal. Keys are PEM files, as
OpenSSL writes them (`openssl genpkey -algorithm ed25519`).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from dlink.runtime.errors import BadInput, Untrusted
from dlink.runtime.files import replacing
from dlink.trt_runtime.manifest import signature_of

CONTEXT = b"dlink manifest, format 1\n"  # signed before the manifest's bytes, since a key may sign other things too
MOST_BYTES = 4096  # of a signature file


def make_keys(path: Path) -> Path:
    """Write a new private key, readable by its owner only, and the public key beside it. Returns the public path."""
    public = path.with_name(path.name + ".pub")
    for p in (path, public):
        if p.exists():
            raise BadInput(f"{p}: is there already; keys are not replaced")
    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


def read_private(path: Path, password: bytes | None = None) -> Ed25519PrivateKey:
    """Read a private key. TypeError if it needs a password and none is given."""
    try:
        key = load_pem_private_key(path.read_bytes(), password)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise BadInput(f"{path}: not a private key in PEM, or the password is another: {e}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: a key of another kind than Ed25519; make one with dlink-sign --new {path.name}")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise BadInput(f"{path}: not a public key in PEM; dlink-sign --new KEY writes KEY.pub") from e
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path}: a key of another kind than Ed25519")
    return key


def sign(plan: Path, manifest: bytes, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a plan's manifest and return its path. The caller has verified the plan."""
    values = {
        "key": key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
        "signature": key.sign(CONTEXT + manifest).hex(),
    }
    path = signature_of(plan)
    with replacing(path) as part:
        part.write_text(json.dumps(values) + "\n")
    return path


def verify(plan: Path, manifest: bytes, keys: Sequence[Path]) -> None:
    """Raise Untrusted unless one of these public keys signed exactly these bytes."""
    path = signature_of(plan)
    trusted = [read_public(k) for k in keys]
    names = " or ".join(str(k) for k in keys)
    remedy = f"sign it: dlink-sign KEY {plan}"
    try:
        with path.open("rb") as f:
            values = json.loads(f.read(MOST_BYTES))
        signature = bytes.fromhex(values["signature"])
    except FileNotFoundError as e:
        raise Untrusted(f"{plan}: is not signed, and a signature by {names} is required; {remedy}") from e
    except (ValueError, TypeError, KeyError, RecursionError) as e:
        raise Untrusted(f"{path}: is not a signature; {remedy}") from e
    for key in trusted:
        try:
            key.verify(signature, CONTEXT + manifest)
        except InvalidSignature:
            continue
        return
    raise Untrusted(f"{plan}: its manifest is not as {names} signed it; {remedy}, if you know where it comes from")
