"""Certificates: what is made can be loaded, and everything else fails closed."""

import os
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from node.errors import NetworkError
from node.wire.authority import add_certificates, issue, make_certificates, names_in
from node.wire.tls import Identity


@pytest.fixture
def folder(tmp_path):
    make_certificates(["n0", "n1"], tmp_path / "certs")
    return tmp_path / "certs"


def context_of(file):
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {"x509_subject_alternative_name": [n.value.encode() for n in names], "x509_pem_cert": [file.read_bytes()]}


def test_an_identity_is_its_certificates_name(folder):
    identity = Identity.load(folder / "n0")
    assert identity.name == "n0"
    expected = datetime.now(timezone.utc) + timedelta(days=365)
    assert identity.expiry_s == pytest.approx(expected.timestamp(), abs=60)
    assert identity.caller(context_of(folder / "n1" / "cert.pem")) == "n1"


def test_every_peer_and_the_operator_gets_one(folder):
    assert names_in(folder) == ["n0", "n1", "operator"]
    assert sorted(file.name for file in (folder / "n0").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


def test_keys_are_private(folder):
    for file in folder.glob("*/key.pem"):
        assert file.stat().st_mode & 0o777 == 0o600
    (folder / "n0" / "key.pem").chmod(0o640)
    with pytest.raises(NetworkError, match="chmod 600"):
        Identity.load(folder / "n0")


@pytest.mark.parametrize("file", ["key.pem", "cert.pem", "ca.pem"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_damaged_files_fail_closed(folder, file, damage):
    path = folder / "n0" / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(500))
    with pytest.raises(NetworkError, match=file):
        Identity.load(folder / "n0")


def test_the_key_of_another_peer_fails(folder):
    (folder / "n0" / "key.pem").write_bytes((folder / "n1" / "key.pem").read_bytes())
    with pytest.raises(NetworkError, match="is not of the key"):
        Identity.load(folder / "n0")


def test_another_authority_fails(folder, tmp_path):
    make_certificates(["n0"], tmp_path / "other")
    (folder / "n0" / "ca.pem").write_bytes((tmp_path / "other" / "n0" / "ca.pem").read_bytes())
    with pytest.raises(NetworkError, match="not signed"):
        Identity.load(folder / "n0")


def test_an_expired_certificate_fails(folder, authority):
    certificate, key = authority(folder)
    mine = Identity.load(folder / "n0").papers
    public = x509.load_pem_x509_certificate(mine.certificate).public_key()
    write(folder / "n0" / "cert.pem", issue("n0", public, certificate, key, days=-1))
    with pytest.raises(NetworkError, match=r"expired.*renew"):
        Identity.load(folder / "n0")


@pytest.mark.parametrize("name", ["UPPER", "a.b", "../n1", "*", "n" * 64])
def test_a_name_that_is_no_peers_name_fails(folder, authority, name):
    certificate, key = authority(folder)
    public = x509.load_pem_x509_certificate((folder / "n0" / "cert.pem").read_bytes()).public_key()
    write(folder / "n0" / "cert.pem", issue(name, public, certificate, key, days=1))
    with pytest.raises(NetworkError, match="one DNS name"):
        Identity.load(folder / "n0")
    with pytest.raises(NetworkError, match="peer's name"):
        make_certificates([name], folder / "more")


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"x509_subject_alternative_name": []},
        {"x509_subject_alternative_name": [b"n0", b"n1"]},
        {"x509_subject_alternative_name": [b"N1"]},
        {"x509_subject_alternative_name": [b"n1\n"]},
        {"x509_subject_alternative_name": [b"\xff"]},
        {"x509_common_name": [b"n1"]},
    ],
)
def test_callers_without_one_name_are_nobody(folder, context):
    assert Identity.load(folder / "n0").caller(context) is None


@pytest.mark.parametrize("by", ["name", "serial"])
def test_denied_callers_are_nobody(folder, by, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("# nobody yet\n")
    identity = Identity.load(folder / "n0", denied)
    caller = context_of(folder / "n1" / "cert.pem")
    assert identity.caller(caller) == "n1"
    serial = x509.load_pem_x509_certificate((folder / "n1" / "cert.pem").read_bytes()).serial_number
    denied.write_text("n1  # left us\n" if by == "name" else f"serial:0{serial:X}\n")
    assert identity.reload()
    assert identity.caller(caller) is None
    assert identity.caller(context_of(folder / "operator" / "cert.pem")) == "operator"


@pytest.mark.parametrize("line", ["serial:xyz", "two words", "N1"])
def test_a_list_of_the_denied_that_says_nothing_clear_fails(folder, line, tmp_path):
    (tmp_path / "denied").write_text(line)
    with pytest.raises(NetworkError, match="neither"):
        Identity.load(folder / "n0", tmp_path / "denied")
    with pytest.raises(NetworkError, match="can't be read"):
        Identity.load(folder / "n0", tmp_path / "missing")


def test_renewing_keeps_keys_and_authority(folder):
    identity = Identity.load(folder / "n0")
    before = identity.papers
    assert not identity.reload()
    make_certificates(names_in(folder), folder, days=700, renew=True)
    assert identity.reload()
    assert (identity.papers.key, identity.papers.authority) == (before.key, before.authority)
    assert identity.papers.expiry - before.expiry > timedelta(days=300)


def test_what_was_read_stays_in_force_when_reading_again_fails(folder):
    identity = Identity.load(folder / "n0")
    before = identity.papers
    (folder / "n0" / "cert.pem").write_bytes((folder / "n1" / "cert.pem").read_bytes())
    with pytest.raises(NetworkError):
        identity.reload()
    (folder / "n0" / "key.pem").write_bytes((folder / "n1" / "key.pem").read_bytes())
    with pytest.raises(NetworkError, match="now for n1"):
        identity.reload()
    assert identity.papers is before


def test_certificates_are_not_overwritten_by_mistake(folder, tmp_path):
    with pytest.raises(NetworkError, match="--renew"):
        make_certificates(["n0"], folder)
    with pytest.raises(NetworkError, match="no authority"):
        make_certificates(["n0"], tmp_path / "empty", renew=True)


def test_further_certificates_are_of_the_same_authority(folder):
    before = {file: file.read_bytes() for file in folder.glob("*/*.pem")}
    assert add_certificates(["n3", "n2"], folder) == ["n2", "n3"]
    assert {file: file.read_bytes() for file in before} == before
    assert names_in(folder) == ["n0", "n1", "n2", "n3", "operator"]
    added = Identity.load(folder / "n2")
    assert added.papers.authority == Identity.load(folder / "n0").papers.authority
    assert added.name == "n2"


def test_a_name_that_has_a_certificate_gets_another_only_on_demand(folder, tmp_path):
    before = Identity.load(folder / "n1").papers
    with pytest.raises(NetworkError, match=r"for n1 already.*--renew"):
        add_certificates(["n1", "n2"], folder)
    assert names_in(folder) == ["n0", "n1", "operator"]
    add_certificates(["n1", "n2"], folder, renew=True)
    after = Identity.load(folder / "n1").papers
    assert after.key == before.key
    assert after.certificate != before.certificate
    with pytest.raises(NetworkError, match="no authority"):
        add_certificates(["n2"], tmp_path / "empty")
    for name in ("", "authority", "N2"):
        with pytest.raises(NetworkError, match="peer's name"):
            add_certificates([name], folder)


def test_the_command(tmp_path):
    import typer

    from node.cli.certs import certs

    app = typer.Typer()
    app.command()(certs)
    first = CliRunner().invoke(app, ["--names", "a, b", "-o", str(tmp_path / "c"), "--days", "30"])
    assert first.exit_code == 0, first.output
    identity = Identity.load(tmp_path / "c" / "a")
    again = CliRunner().invoke(app, ["-o", str(tmp_path / "c"), "--renew", "--json"])
    assert again.exit_code == 0, again.output
    assert '"names": ["a", "b", "operator"]' in again.stdout
    assert identity.reload()
    more = CliRunner().invoke(app, ["-o", str(tmp_path / "c"), "--add", "d, c", "--json"])
    assert '"names": ["c", "d"]' in more.stdout
    assert not identity.reload()


@pytest.fixture
def authority():
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def read(folder):
        key = load_pem_private_key((folder / "authority" / "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate((folder / "authority" / "ca.pem").read_bytes()), key

    return read


def write(file, certificate):
    from cryptography.hazmat.primitives.serialization import Encoding

    file.write_bytes(certificate.public_bytes(Encoding.PEM))
