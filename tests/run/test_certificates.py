"""Certificates of a cluster: a key for each role, which all believe and nobody else."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from mce_notebook.run.clusters.certificates import ROLES, Certificates, issue


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return issue(2)


def test_every_role_has_a_key_of_its_own_and_the_authority_has_none(certificates: Certificates) -> None:
    keys = {certificates.pairs[role].key for role in ROLES}
    assert len(keys) == len(ROLES)
    root = x509.load_pem_x509_certificate(certificates.authority.encode())
    for role in ROLES:
        told = certificates.of(role)
        assert set(told) == {"ca", "cert", "key"}
        made = x509.load_pem_x509_certificate(told["cert"].encode())
        made.verify_directly_issued_by(root)
        assert (made.not_valid_after_utc - made.not_valid_before_utc).total_seconds() == 3 * 3600
        # A certificate of a role makes no others.
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_strangers_are_not_believed(certificates: Certificates, tmp_path: Path) -> None:
    stranger = issue(2)
    for name, text in {
        **certificates.of("worker"),
        **{f"other_{k}": v for k, v in stranger.of("worker").items()},
    }.items():
        (tmp_path / name).write_text(text)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca"))
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    context.verify_mode = ssl.CERT_REQUIRED
    for prefix, believed in (("", True), ("other_", False)):
        assert _shakes(context, tmp_path, prefix) is believed


def _shakes(server: ssl.SSLContext, folder: Path, prefix: str) -> bool:
    """Whether client and server agree, through buffers."""
    client = ssl.create_default_context(cafile=str(folder / "ca"))
    client.check_hostname = False
    client.load_cert_chain(folder / f"{prefix}cert", folder / f"{prefix}key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    try:
        for _ in range(4):
            for side in (ours, theirs):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError:
        return False
    return True


def test_no_key_is_in_the_environment_of_this_package() -> None:
    code = "import mce_notebook.run.clusters.certificates as c; import sys; print('cryptography' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False", "loaded only where certificates are made"
