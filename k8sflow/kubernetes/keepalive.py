"""TCP keepalive for connections on which the other side may be silent for long."""

from __future__ import annotations

import socket

import aiohttp


def probe_silent_connection(response: aiohttp.ClientResponse) -> None:
    """Turns on TCP keepalive, so that a dead peer is noticed within 5 s."""
    connection = response.connection
    if connection is None or connection.transport is None:
        return
    peer = connection.transport.get_extra_info("socket")
    if peer is None:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 2)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
