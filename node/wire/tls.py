"""Who a peer is: the single DNS name in its certificate, which an authority of the run has signed.

Theory of operation
-------------------
Every peer has a folder with its key, its certificate and the authority's certificate. Both ends of every connection
show theirs (mTLS), and what a peer is called is read from the certificate, never from a message. The authority's own
key lies in a folder apart, as ``authority.py`` writes them: no peer needs it.

Invariants
----------
* It fails closed: a file that is missing, unreadable, expired, of another key or of another authority is an error.
* What was read before stays in force when reading again fails.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from node.errors import NetworkError

NAME = re.compile(r"[a-z0-9-]{1,63}\Z")
OPERATOR = "operator"
"""Whose certificate may end a run; no peer's name."""


# ------------------------------------------------------------------------------------------ identity


@dataclass(frozen=True, slots=True)
class Papers:
    """What one reading of the files found: PEM bytes, and what they say."""

    name: str
    key: bytes
    certificate: bytes
    authority: bytes
    expiry: datetime
    denied: frozenset[str]


class Identity:
    """A peer's key and certificate, read again on demand.

    Parameters
    ----------
    key, certificate, authority : Path
        PEM files: the private key, the certificate, and the certificate of the authority that signs peers.
    denied : Path, optional
        Names and serials that are not let in, though the authority signed them: one a line, a serial as
        ``serial:1F2E…`` in hexadecimal; ``#`` begins a comment.

    Raises
    ------
    NetworkError
        When anything about them is not as it must be.
    """

    def __init__(self, key: Path, certificate: Path, authority: Path, denied: Path | None = None) -> None:
        self._files = (key, certificate, authority, denied)
        self.papers = _read_papers(*self._files)

    @classmethod
    def load(cls, folder: Path, denied: Path | None = None) -> Identity:
        """The identity in a peer's folder, as ``authority.py`` writes it; raises :class:`NetworkError`."""
        return cls(folder / "key.pem", folder / "cert.pem", folder / "ca.pem", denied)

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.papers.name

    @property
    def expiry_s(self) -> float:
        """When the certificate expires, in seconds since 1970."""
        return self.papers.expiry.timestamp()

    def reload(self) -> bool:
        """Read the files again; whether anything has changed.

        Raises
        ------
        NetworkError
            When they can't be used; then what was read before stays in force.
        """
        papers = _read_papers(*self._files)
        if papers.name != self.name:
            raise NetworkError(f"the certificate {self._files[1]} is now for {papers.name}, not for {self.name}.")
        changed = papers != self.papers
        self.papers = papers
        return changed

    def caller(self, context: Mapping[str, Iterable[bytes]]) -> str | None:
        """Who calls, from a call's authentication context; None when the certificate is denied or names no peer."""
        names = [name.decode(errors="replace") for name in context.get("x509_subject_alternative_name", ())]
        if len(names) != 1 or not NAME.match(names[0]) or names[0] in self.papers.denied:
            return None
        if any(_serial(pem) in self.papers.denied for pem in context.get("x509_pem_cert", ())):
            return None
        return names[0]

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server that asks every client for its certificate, and shows new ones what :meth:`reload` last read."""
        shown = self.papers

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            if shown is self.papers:
                return None
            shown = self.papers
            return _configuration(shown)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(shown),
            renewed,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a client; fixed once made, so that a channel must be made anew after :meth:`reload`."""
        return grpc.ssl_channel_credentials(self.papers.authority, self.papers.key, self.papers.certificate)

    def context(self) -> ssl.SSLContext:
        """For a client of Python's own TLS that lets in whomever the authority has signed, and reads who that is."""
        key, certificate, *_ = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.papers.authority.decode("ascii", "ignore"))
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        return context


def _configuration(papers: Papers) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(papers.key, papers.certificate)], papers.authority)


@lru_cache(maxsize=256)
def _serial(certificate: bytes) -> str:
    return _serial_line(x509.load_pem_x509_certificate(certificate).serial_number)


def _serial_line(number: int) -> str:
    return f"serial:{number:x}"


# ------------------------------------------------------------------------------------------- reading


def _read_papers(key_file: Path, certificate_file: Path, authority_file: Path, denied_file: Path | None) -> Papers:
    key, certificate, authority = _read(key_file), _read(certificate_file), _read(authority_file)
    _check_private(key_file)
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise NetworkError(f"{key_file} is no unencrypted private key in PEM form.") from None
    mine, *_ = _certificates(certificate, certificate_file)
    if mine.public_key() != private.public_key():
        raise NetworkError(f"the certificate {certificate_file} is not of the key {key_file}.")
    if not any(_signed_by(mine, root) for root in _certificates(authority, authority_file)):
        raise NetworkError(f"the certificate {certificate_file} is not signed by the authority in {authority_file}.")
    now = datetime.now(timezone.utc)
    if now < mine.not_valid_before_utc:
        raise NetworkError(
            f"the certificate {certificate_file} is not valid before {mine.not_valid_before_utc:%F %R} UTC."
        )
    if now > mine.not_valid_after_utc:
        raise NetworkError(
            f"the certificate {certificate_file} expired at {mine.not_valid_after_utc:%F %R} UTC: renew it with "
            "`gradvine certs --renew`."
        )
    denied = _read_denied(denied_file) if denied_file else frozenset[str]()
    return Papers(_only_name(mine, certificate_file), key, certificate, authority, mine.not_valid_after_utc, denied)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise NetworkError(f"{file} can't be read: {error.strerror}.") from None


def _check_private(file: Path) -> None:
    # ssh's rule: a key of ours must be ours alone. One that belongs to somebody else, as a container's secret does to
    # root, has a mode that we may not be able to change.
    status = file.stat()
    if hasattr(os, "getuid") and status.st_uid == os.getuid() and status.st_mode & 0o077:
        raise NetworkError(f"the key {file} can be read by others: run `chmod 600 {file}`.")


def _certificates(pem: bytes, file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise NetworkError(f"{file} is no certificate in PEM form.") from None


def _signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _only_name(certificate: x509.Certificate, file: Path) -> str:
    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    if len(names) == 1 and isinstance(names[0], x509.DNSName) and NAME.match(names[0].value):
        return names[0].value
    raise NetworkError(f"the certificate {file} must have one DNS name, of a to z, 0 to 9 and -, and no other names.")


def _read_denied(file: Path) -> frozenset[str]:
    denied = set()
    for line in _read(file).decode(errors="replace").splitlines():
        entry = line.partition("#")[0].strip()
        try:
            if entry.lower().startswith("serial:"):
                denied.add(_serial_line(int(entry[7:].replace(":", ""), 16)))
            elif entry:
                denied.add(NAME.match(entry)[0])  # type: ignore[index]
        except (ValueError, TypeError):
            raise NetworkError(f"{file}: {entry!r} is neither a peer's name nor serial:HEX.") from None
    return frozenset(denied)
