"""What a call and a connection may cost: the wire's waits and bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Waits and bounds of one peer's connections.

    Parameters
    ----------
    patience_s : float
        How long a call may take that carries nothing.
    rate_min_bytes_s : float
        The slowest link that is worth waiting for.
    keepalive_s, keepalive_timeout_s : float
        A silent connection is probed after so long, and given up so long after that.
    idle_s : float
        A connection without calls is closed after so long.
    reconnect_first_s, reconnect_max_s : float
        Back-off between attempts to reach a neighbour again.
    grace_s : float
        How long calls may go on when the peer stops.
    sends_max : int
        Messages under way to one neighbour at once; the guard of the other side lets in as many.
    other_calls_max : int
        Pings, health checks and the like of one caller at once.
    streams_max : int
        Calls of one connection at once.
    """

    patience_s: float = 2.0
    rate_min_bytes_s: float = 2.0**16
    keepalive_s: float = 20.0
    keepalive_timeout_s: float = 10.0
    idle_s: float = 300.0
    reconnect_first_s: float = 0.2
    reconnect_max_s: float = 2.0
    grace_s: float = 0.5
    sends_max: int = 2
    other_calls_max: int = 4
    streams_max: int = 8

    def wait_s(self, size_bytes: int = 0) -> float:
        """How long to wait for a call that carries so many bytes."""
        return self.patience_s + size_bytes / self.rate_min_bytes_s

    def options(self) -> list[tuple[str, int]]:
        """Of both ends of a connection, as gRPC names them."""
        return [
            ("grpc.max_receive_message_length", 2 * 2**20),
            ("grpc.max_metadata_size", 8 * 2**10),
            ("grpc.http2.max_frame_size", 2**20),  # 16 KiB by default, which costs TLS a third of its speed
            ("grpc.keepalive_time_ms", _ms(self.keepalive_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.http2.ping_timeout_ms", _ms(self.keepalive_timeout_s)),  # without it a stopped peer is not noticed
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    def server_options(self) -> list[tuple[str, int]]:
        """Of the end that listens."""
        return [
            *self.options(),
            ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a second listener
            ("grpc.max_concurrent_streams", self.streams_max),
            ("grpc.max_connection_idle_ms", _ms(self.idle_s)),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.keepalive_s / 2)),
        ]

    def channel_options(self) -> list[tuple[str, int]]:
        """Of the end that calls."""
        return [
            *self.options(),
            ("grpc.initial_reconnect_backoff_ms", _ms(self.reconnect_first_s)),
            ("grpc.min_reconnect_backoff_ms", _ms(self.reconnect_max_s)),
            ("grpc.max_reconnect_backoff_ms", _ms(self.reconnect_max_s)),
            ("grpc.use_local_subchannel_pool", 1),
        ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
