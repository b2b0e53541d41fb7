"""The run's own certificate authority: who signs the peers' certificates.

A private authority is all that a run needs: peers trust it and nobody else. Keys are EC P-256.

Invariants
----------
* A private key is readable by its owner only, from the moment its file exists.
* Renewing keeps the keys and replaces each certificate in one step: no daemon ever reads one that does not fit its key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.errors import NetworkError
from node.wire.tls import NAME, OPERATOR

AUTHORITY_DAYS = 3650
SKEW = timedelta(days=1)
"""A new certificate is valid from this long ago, for machines whose clocks lag."""


def make_certificates(names: Iterable[str], folder: Path, days: int = 365, renew: bool = False) -> list[str]:
    """Write an authority, and a folder with key, certificate and authority for every name and for the operator.

    ``folder/NAME/{key,cert,ca}.pem`` is all that peer NAME needs; ``folder/authority/`` stays with whoever signs.

    Parameters
    ----------
    names : iterable of str
        The peers.
    folder : Path
        Where to; made if it is not there.
    days : int
        How long the certificates are valid; the authority is for ten years.
    renew : bool
        Keep authority and keys, write every certificate anew.

    Returns
    -------
    list of str
        Whom there are certificates for now, sorted.

    Raises
    ------
    NetworkError
        When there is an authority already and ``renew`` is off, when there is none or it has expired and ``renew`` is
        on, when a name can't be used, or the folder can't be written.
    """
    names = _checked({*names, OPERATOR})
    apart = folder / "authority"
    there = _has_key(apart)
    if there and not renew:
        raise NetworkError(
            f"{folder} holds certificates already: write --renew to renew them, --add for more, or another folder."
        )
    if not there and renew:
        raise NetworkError(f"there is no authority in {apart} to renew certificates with.")
    _write_all(names, folder, days)
    return names


def add_certificates(names: Iterable[str], folder: Path, days: int = 365, renew: bool = False) -> list[str]:
    """Write folders like those of :func:`make_certificates` for further names, signed by the authority that is there.

    Returns
    -------
    list of str
        The names, sorted.

    Raises
    ------
    NetworkError
        When there is no authority or it has expired, when a name can't be used or, with ``renew`` off, has a
        certificate already, or the folder can't be written.
    """
    names = _checked(names)
    if not _has_key(folder / "authority"):
        raise NetworkError(f"there is no authority in {folder / 'authority'}: write --plan or --names first.")
    taken = sorted({*names} & {*names_in(folder)})
    if taken and not renew:
        raise NetworkError(f"{folder} holds a certificate for {taken[0]} already: write --renew to renew it.")
    _write_all(names, folder, days)
    return names


def _has_key(apart: Path) -> bool:
    try:
        return (apart / "key.pem").exists()
    except OSError as error:
        raise NetworkError(f"{apart} can't be read: {error.strerror}.") from None


def _checked(names: Iterable[str]) -> list[str]:
    for name in names:
        if not NAME.match(name) or name == "authority":
            raise NetworkError(f"{name!r} can't be a peer's name: write 1 to 63 of a to z, 0 to 9 and -.")
    return sorted({*names})


def _write_all(names: list[str], folder: Path, days: int) -> None:
    """Certificates for these names; the authority is made where there is none."""
    apart = folder / "authority"
    try:
        fresh = not (apart / "key.pem").exists()
        authority_key = _key(apart / "key.pem")
        if fresh:
            _write(apart / "ca.pem", _pem(_authority(authority_key)))
        authority_pem = (apart / "ca.pem").read_bytes()
        authority = x509.load_pem_x509_certificate(authority_pem)
        if authority.not_valid_after_utc < datetime.now(timezone.utc):
            raise NetworkError(f"the authority in {apart} has expired: make new certificates in another folder.")
        for name in names:
            key = _key(folder / name / "key.pem")
            _write(folder / name / "ca.pem", authority_pem)
            _write(folder / name / "cert.pem", _pem(issue(name, key.public_key(), authority, authority_key, days)))
    except OSError as error:
        raise NetworkError(f"certificates can't be written to {folder}: {error.strerror}.") from None


def names_in(folder: Path) -> list[str]:
    """Whom a folder holds keys of, sorted."""
    return sorted(file.parent.name for file in folder.glob("*/key.pem") if file.parent.name != "authority")


def issue(
    name: str,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    days: float,
) -> x509.Certificate:
    """A certificate for a name and a key, valid from a day ago until ``days`` from now."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    end = min(datetime.now(timezone.utc) + timedelta(days=days), authority.not_valid_after_utc)
    return (
        _certificate(name, key, authority.subject, end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gradvine authority")])
    end = datetime.now(timezone.utc) + timedelta(days=AUTHORITY_DAYS)
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _certificate("gradvine authority", key.public_key(), name, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, issuer: x509.Name, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(datetime.now(timezone.utc), end) - SKEW)
        .not_valid_after(end)
    )


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    _write(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain), mode=0o600)
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, data: bytes, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(data)
    fresh.replace(file)
