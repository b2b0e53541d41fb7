"""What is seen of a peer from outside: pages, metrics, and that nobody can hang them."""

import json
import math
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from algorithms.protocol import Reason
from node.cli.status import read_status
from node.errors import NetworkError
from node.meter import STALLED_S, Meter, PeerStatus, Status
from node.pages import REQUESTS_MAX, serve_pages

STATUS = Status(
    name="n0",
    run="run-1",
    algorithm="gossip",
    task="digits",
    loss=0.5,
    gradients=7,
    exchanges=3,
    unit_seconds=0.5,
    exchange_p99_units=0.25,
    ready=True,
    undelivered={"n1": 2},
    peers={"n1": PeerStatus("alive", 2.0, 1.5, 3), "n2": PeerStatus("gone", 2.0, 0.0, 0)},
)


class Hand:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture
def meter(clock):
    return Meter(STATUS, clock)


@pytest.fixture
def address(meter):
    with serve_pages("127.0.0.1:0", meter.pages()) as port:
        yield f"127.0.0.1:{port}"


def fetch(address, path, method="GET"):
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(address):
    families = text_string_to_metric_families(fetch(address, "/metrics")[1])
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_rounds_are_shown_in_place_of_rates_where_edges_have_no_clocks(meter, address):
    assert ("gradvine_round",) not in samples(address)
    states = {"n1": "alive", "n2": "gone", "n3": "suspect", "n4": "suspect"}
    meter.show(replace(STATUS, round=12, peers={name: PeerStatus(state) for name, state in states.items()}))
    found = samples(address)
    assert found[("gradvine_round",)] == 12
    assert [found[("gradvine_peers", ("state", state))] for state in ("alive", "suspect", "gone")] == [1, 2, 1]
    assert not [name for name, *_ in found if "rate" in name or ("exchanges_total" in name and "lost" not in name)]
    status = json.loads(fetch(address, "/status")[1])
    assert (status["round"], status["peers"]["n1"]["exchanges"]) == (12, None)


def test_metrics_are_what_the_status_says(meter, address):
    meter.sent("n1", "offer", 100, 0.1)
    meter.sent("n1", "offer", 20, 0.15)
    meter.received("n2", "reply", 50)
    meter.refused("stranger", Reason.WRONG_RUN)
    found = samples(address)
    expected = {
        ("gradvine_gradients_total",): 7,
        ("gradvine_loss",): 0.5,
        ("gradvine_exchanges_total", ("peer", "n1")): 3,
        ("gradvine_undelivered_total", ("peer", "n1")): 2,
        ("gradvine_undelivered_total", ("peer", "n2")): 0,
        ("gradvine_peers", ("state", "alive")): 1,
        ("gradvine_peers", ("state", "gone")): 1,
        ("gradvine_rate_asked_hz", ("peer", "n1")): 2.0,
        ("gradvine_rate_achieved_hz", ("peer", "n1")): 1.5,
        ("gradvine_sent_bytes_total", ("kind", "offer"), ("peer", "n1")): 120,
        ("gradvine_received_bytes_total", ("kind", "reply"), ("peer", "n2")): 50,
        ("gradvine_refused_total", ("reason", "wrong_run")): 1,
        ("gradvine_exchange_seconds_count", ("peer", "n1")): 2,
        ("gradvine_exchange_seconds_sum", ("peer", "n1")): 0.25,
        ("gradvine_exchange_seconds_bucket", ("le", "0.1"), ("peer", "n1")): 1,
        ("gradvine_unit_seconds",): 0.5,
        ("gradvine_exchange_p99_units",): 0.25,
    }
    assert {key: found[key] for key in expected} == expected
    assert math.isnan(found["gradvine_accuracy_ratio",])
    assert all(key[0].startswith(("gradvine_", "process_")) and not key[0].endswith("_created") for key in found)


def test_whatever_alerts_need_is_a_number_from_the_start(meter, clock, address):
    found = samples(address)
    assert {dict(key[1:])["reason"] for key in found if key[0] == "gradvine_refused_total"} == {r.value for r in Reason}
    assert sum(value for key, value in found.items() if key[0] == "gradvine_refused_total") == 0
    assert [found["gradvine_alive", ("peer", name)] for name in ("n1", "n2")] == [1, 0]
    assert (found["gradvine_ready",], found["gradvine_models_merged",], found["gradvine_status_age_seconds",]) == (
        1,
        0,
        0,
    )
    assert found["gradvine_seconds_left",] == math.inf
    assert found["process_resident_memory_bytes",] > 2**20
    clock.now += 7
    meter.show(replace(STATUS, phase="merging", ready=False, peers={"n1": PeerStatus("suspect")}))
    clock.now += 2
    found = samples(address)
    phases = {dict(key[1:])["phase"]: value for key, value in found.items() if key[0] == "gradvine_phase"}
    assert phases == {"waiting": 0, "learning": 0, "merging": 1, "draining": 0}
    assert (found["gradvine_ready",], found["gradvine_status_age_seconds",]) == (0, 2)
    assert found["gradvine_alive", ("peer", "n1")] == 0.5


def test_metrics_of_two_peers_in_one_process_are_apart(meter, address):
    other = Meter(replace(STATUS, gradients=99))
    other.sent("n1", "offer", 5, 0.1)
    found = samples(address)
    assert found["gradvine_gradients_total",] == 7
    assert ("gradvine_sent_bytes_total", ("kind", "offer"), ("peer", "n1")) not in found


def test_status_is_json_and_what_does_not_exist_is_null(address):
    page = read_status(address)
    assert page == json.loads(fetch(address, "/status")[1])
    assert (page["loss"], page["accuracy"], page["exchanges"]) == (0.5, None, 3)
    assert page["peers"]["n1"] == {
        "state": "alive",
        "rate_asked_hz": 2.0,
        "rate_achieved_hz": 1.5,
        "exchanges": 3,
        "distance": None,
    }


def test_health_is_that_the_loop_turns_and_readiness_what_it_says(meter, clock, address):
    assert [fetch(address, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    clock.now += STALLED_S + 1
    meter_is_stale = fetch(address, "/healthz")
    assert meter_is_stale == (503, "the loop has stalled\n")
    meter.show(replace(STATUS, ready=False))
    assert [fetch(address, path)[0] for path in ("/healthz", "/readyz")] == [200, 503]


def test_nothing_else_is_served_or_told(meter):
    def fail():
        raise RuntimeError("secret")

    with serve_pages("127.0.0.1:0", {"/fails": fail, "/ok": meter.pages()["/healthz"]}) as port:
        address = f"127.0.0.1:{port}"
        assert fetch(address, "/")[0] == 404
        assert fetch(address, "/../../etc/passwd") == (404, "404 Not Found\n")
        assert fetch(address, "/ok", "POST")[0] == 501
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(b"GET /fails HTTP/1.0\r\n\r\n")
            assert line.recv(1000) == b""
        assert fetch(address, "/ok?verbose=1")[0] == 200


def test_callers_that_say_nothing_are_hung_up_on(address):
    host, port = address.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(REQUESTS_MAX + 3)]
    try:
        assert [line.recv(1) for line in silent[-3:]] == [b""] * 3, "too many at once: at once"
        assert [line.recv(1) for line in silent] == [b""] * len(silent), "the others: when patience is over"
    finally:
        for line in silent:
            line.close()
    assert fetch(address, "/healthz")[0] == 200


def test_callers_that_speak_too_slowly_are_hung_up_on(address, monkeypatch):
    monkeypatch.setattr("node.pages.PATIENCE_S", 0.1)
    monkeypatch.setattr("node.pages._Request.timeout", 60)  # which each byte would begin again
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(b"GET /healthz HTT")
        while line.recv(1000):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999999", "203.0.113.1:9700"])
def test_address_that_can_not_be_used_is_a_sentence(address, meter):
    with pytest.raises(NetworkError, match="--http"), serve_pages(address, meter.pages()):
        pass


def test_what_is_no_peer_is_told_from_one(meter):
    pages = {"/status": meter.pages()["/healthz"]}
    with serve_pages("127.0.0.1:0", pages) as port, pytest.raises(NetworkError, match="is no peer"):
        read_status(f"127.0.0.1:{port}")
    with pytest.raises(NetworkError, match="no peer answers"):
        read_status(f"127.0.0.1:{port}")


def test_what_does_not_even_speak_http_is_no_peer():
    def answer() -> None:
        line, _ = server.accept()
        with line:
            line.recv(1024)
            line.sendall(b"220 mail here\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NetworkError, match="is no peer"):
            read_status(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_pages_are_served_on_an_address_of_ipv6_too(meter):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with serve_pages("[::1]:0", meter.pages()) as port:
        assert read_status(f"[::1]:{port}")["name"] == "n0"
