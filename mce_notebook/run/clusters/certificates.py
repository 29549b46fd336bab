"""Certificates of one cluster: an authority of its own, and a key for each role.

Dask's temporary ones are a single key for all roles, so that whoever gets a worker's has the scheduler's too. Here the
authority's key exists only while the others are made, and each role gets its own.
"""

import datetime
from dataclasses import dataclass

ROLES = ("scheduler", "worker", "client")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Certificates:
    """Those of one cluster.

    Parameters
    ----------
    authority : str
        The certificate all trust, PEM; its key is kept nowhere.
    pairs : dict of str to Pair
        By role.
    """

    authority: str
    pairs: dict[str, Pair]

    def of(self, role: str) -> dict[str, str]:
        """Return what one role needs: `ca`, `cert`, `key`."""
        pair = self.pairs[role]
        return {"ca": self.authority, "cert": pair.certificate, "key": pair.key}


def issue(hours: float) -> Certificates:
    """Make certificates that hold for `hours`, and an hour before now for clocks that are slow."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    span = (now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=hours))

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def builder(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("mce authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(span[0])
            .not_valid_after(span[1])
        )

    root = ec.generate_private_key(ec.SECP256R1())
    above = (
        builder("mce authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root, hashes.SHA256())
    )
    pairs = {}
    for role in ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            builder(f"mce {role}", key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"mce-{role}")]), critical=False)
            .sign(root, hashes.SHA256())
        )
        pairs[role] = Pair(_pem(made), _pem_key(key))
    return Certificates(_pem(above), pairs)


def _pem(certificate: object) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    assert isinstance(certificate, x509.Certificate)
    return certificate.public_bytes(Encoding.PEM).decode()


def _pem_key(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
