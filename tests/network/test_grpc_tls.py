"""Who is let in: nobody without a certificate of this run, and nobody under another name."""

import socket
import ssl

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from algorithms.protocol import Reason
from node.errors import NetworkError
from node.wire.authority import issue, make_certificates
from node.wire.bridge import open_bridge
from node.wire.transport import Undelivered

pytestmark = pytest.mark.trio


def made_for(folder, name, days, monkeypatch=None):
    """Credentials with the key of a, and a certificate issued just now."""
    authority = x509.load_pem_x509_certificate((folder / "authority" / "ca.pem").read_bytes())
    authority_key = load_pem_private_key((folder / "authority" / "key.pem").read_bytes(), None)
    key = (folder / "a" / "key.pem").read_bytes()
    public = load_pem_private_key(key, None).public_key()
    certificate = issue(name, public, authority, authority_key, days)
    return credentials(folder / "a" / "ca.pem", key, certificate.public_bytes(Encoding.PEM))


def credentials(authority, key=None, certificate=None):
    return grpc.ssl_channel_credentials(authority.read_bytes(), key, certificate)


async def test_an_honest_certificate_is_let_in(wires):
    async with wires.pair(tls=True) as (_, b):
        assert await b.call(b.frames(), credentials=made_for(wires.certificates, "a", 1)) == "ACCEPTED"


@pytest.mark.parametrize("method", ["Deliver", "Ping"])
@pytest.mark.parametrize("papers", ["none", "expired", "not-yet", "another-authority", "plaintext"])
async def test_no_connection_without_a_valid_certificate(wires, tmp_path, papers, method, monkeypatch):
    folder = wires.certificates
    if papers == "none":
        shown = credentials(folder / "a" / "ca.pem")
    elif papers == "expired":
        shown = made_for(folder, "a", days=-1)
    elif papers == "not-yet":
        from datetime import timedelta

        monkeypatch.setattr("node.wire.authority.SKEW", timedelta(days=-1))
        shown = made_for(folder, "a", days=9)
    elif papers == "another-authority":
        make_certificates(["a"], tmp_path / "o")
        files = [(tmp_path / "o" / "a" / file).read_bytes() for file in ("key.pem", "cert.pem")]
        shown = credentials(folder / "a" / "ca.pem", *files)
    else:
        shown = None
    async with wires.pair(tls=True) as (a, b):
        assert await b.call(b.frames(), method, credentials=shown) == "UNAVAILABLE"
        assert b.counts.received_all == []
        await a.transport.send("b", a.offer())


@pytest.mark.parametrize("name", ["nobody", "b"])
async def test_a_certificate_of_no_neighbour_is_refused(wires, name):
    async with wires.pair(tls=True) as (_, b):
        shown = made_for(wires.certificates, name, 1)
        assert await b.call(b.frames(), credentials=shown, sender="a") == "NOT_MY_NEIGHBOUR"
        assert [reason for _, reason in b.counts.refused_all] == [Reason.NOT_MY_NEIGHBOUR]


async def test_a_server_under_another_name_is_not_spoken_to(wires):
    async with open_bridge() as bridge, wires.peer(bridge, "c", {"a": ""}, owned=False, tls=True) as c:
        to = {"b": f"127.0.0.1:{c.transport.port}"}
        async with wires.peer(bridge, "a", to, owned=True, tls=True) as a:
            with pytest.raises(Undelivered) as failure:
                await a.transport.send("b", a.offer())
            assert failure.value.reason is Reason.UNREACHABLE
            assert c.counts.received_all == c.counts.refused_all == []


async def test_a_plaintext_server_is_not_spoken_to(wires):
    async with wires.pair() as (a, b):
        async with wires.peer(b.bridge, "a", {"b": f"127.0.0.1:{b.transport.port}"}, owned=True, tls=True) as secure:
            with pytest.raises(Undelivered):
                await secure.transport.send("b", a.offer())
        assert b.counts.received_all == []


async def test_who_is_denied_is_shut_out_at_once_and_let_in_again(wires, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("")
    async with wires.pair(tls=True, denied=denied) as (a, b):
        await a.transport.send("b", a.offer())
        denied.write_text("a\n")
        await b.transport.reload()
        with pytest.raises(Undelivered) as refusal:
            await a.transport.send("b", a.offer(2))
        assert refusal.value.reason is Reason.NOT_MY_NEIGHBOUR
        with pytest.raises(Undelivered):
            await b.transport.ping("a")
        denied.write_text("")
        await b.transport.reload()
        await a.transport.send("b", a.offer(3))
        assert [(await b.take())[1].number for _ in range(2)] == [1, 3]


async def test_renewed_certificates_are_shown_without_a_restart(wires, tmp_path):
    wires.certificates = tmp_path
    make_certificates(["a", "b"], tmp_path)
    async with wires.pair(tls=True) as (a, b):
        await a.transport.ping("b")
        before = serial_shown(b)
        make_certificates(["a", "b"], tmp_path, renew=True)
        assert serial_shown(b) == before
        await a.transport.reload()
        await b.transport.reload()
        now = x509.load_pem_x509_certificate((tmp_path / "b" / "cert.pem").read_bytes()).serial_number
        assert serial_shown(b) == now != before
        await a.transport.send("b", a.offer())


async def test_a_certificate_that_cannot_be_read_again_changes_nothing(wires, tmp_path):
    wires.certificates = tmp_path
    make_certificates(["a", "b"], tmp_path)
    async with wires.pair(tls=True) as (a, b):
        (tmp_path / "b" / "cert.pem").write_text("")
        with pytest.raises(NetworkError):
            await b.transport.reload()
        await a.transport.send("b", a.offer())


def serial_shown(peer):
    """Of the certificate that the port shows; what it thinks of ours does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", peer.transport.port)) as plain, context.wrap_socket(plain) as secure:
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True)).serial_number
