"""ServiceAccount tokens as a cluster's API server signs them, made by a test: true to the form, forged in what it says."""

import base64
import json
import os
import subprocess
import tempfile
import time

ISSUER = "https://kubernetes.default.svc.cluster.local"


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def new_key(folder):
    """Makes a P-256 key of nobody's and returns its file."""
    path = os.path.join(folder, "stranger.key")
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path], check=True)
    return path


def key_id(token):
    """Which key signed a token."""
    return json.loads(decode(token.split(".")[0]))["kid"]


def sign(key, kid, namespace, account="default", audience="ray", lifetime=3600, issuer=ISSUER):
    """A token, signed with ES256 by the key in a file. A lifetime below 0 is one that has ended."""
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": [audience], "sub": "system:serviceaccount:%s:%s" % (namespace, account), "iat": now - 7200, "nbf": now - 7200,
        "exp": now + lifetime, "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "0"}},
    }  # fmt: skip
    text = encode(json.dumps({"alg": "ES256", "kid": kid}).encode()) + "." + encode(json.dumps(claims).encode())
    with tempfile.NamedTemporaryFile() as f:
        f.write(text.encode())
        f.flush()
        der = subprocess.check_output(["openssl", "dgst", "-sha256", "-sign", key, f.name])
    return text + "." + encode(raw_signature(der))


def raw_signature(der):
    """r and s, 32 bytes each, of a signature that OpenSSL wrote as SEQUENCE { INTEGER r, INTEGER s }."""
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2 : at + 2 + length], "big").to_bytes(32, "big"))
        at += 2 + length
    return b"".join(numbers)
