"""Write ``peer_pb2.py`` and ``peer_pb2.pyi`` anew from ``peer.proto``: ``make protos``, or ``regenerate.py FOLDER``.

The generated files are checked in, so that neither users nor the daemon need the compiler. There is no
``peer_pb2_grpc.py``: the wire registers its own handlers, which see a frame's bytes before protobuf does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def main(folder: Path) -> int:
    """Compile into ``folder/protos``; the compiler's exit code."""
    arguments = [f"--proto_path={ROOT}", f"--python_out={folder}", f"--pyi_out={folder}", "protos/peer.proto"]
    return int(protoc.main(["protoc", *arguments]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
