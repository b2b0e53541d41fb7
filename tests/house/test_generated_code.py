"""The checked-in protobuf code is what the compiler makes of peer.proto."""

import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"


def test_generated_code_is_current(tmp_path):
    subprocess.run([sys.executable, str(PROTOS / "regenerate.py"), str(tmp_path)], check=True)
    generated = sorted((tmp_path / "protos").iterdir())
    assert [file.name for file in generated] == ["peer_pb2.py", "peer_pb2.pyi"]
    for file in generated:
        assert file.read_text() == (PROTOS / file.name).read_text(), f"{file.name} is not current: run `make protos`"


def test_receipt_codes_are_the_receivers_reasons():
    from algorithms.protocol import Reason
    from protos import peer_pb2

    codes = set(peer_pb2.Code.keys()) - {"CODE_UNSPECIFIED", "ACCEPTED"}
    assert codes == {reason.name for reason in Reason} - {"UNREACHABLE", "TIMEOUT"}


@pytest.mark.parametrize("method", ["Deliver", "Ping"])
def test_the_service_is_described(method):
    from protos import peer_pb2

    assert method in peer_pb2.DESCRIPTOR.services_by_name["Peer"].methods_by_name
