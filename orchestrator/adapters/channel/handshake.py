"""The first three frames of a connection, from the host's side; on a blocking socket, in a disposable thread."""

import secrets
import socket

from orchestrator.adapters.channel.replies import agent_hello
from orchestrator.adapters.channel.transport import TransportError, passed, seconds_until
from orchestrator.domain import wire
from orchestrator.domain.ports import AgentHello

HEARTBEAT_SECONDS = 10.0


def shake_hands(sock: socket.socket, *, secret: str, sandbox_id: str, heartbeat: float, deadline: float) -> AgentHello:
    """Challenge the peer and welcome it when it proves itself. Reads not a byte beyond its hello.

    Raises TransportError, ProtocolViolationError or OSError; the caller closes the socket.
    """
    nonce = secrets.token_hex(16)
    sock.settimeout(seconds_until(deadline))
    sock.sendall(wire.encode({"type": "challenge", "nonce": nonce}))
    frame = _next_frame(sock, deadline)
    header = frame.header
    if frame.type != "hello" or header.get("sandbox") != sandbox_id:
        raise TransportError("somebody else said hello")
    if not wire.proven(secret, "agent", nonce, header.get("proof")):
        raise TransportError("a hello was not proven")
    agent_nonce = header.get("nonce")
    if not isinstance(agent_nonce, str) or not agent_nonce.isascii():
        raise TransportError("a hello has no nonce")
    hello = agent_hello(frame)
    sock.settimeout(seconds_until(deadline))
    welcome = {"type": "welcome", "proof": wire.proof(secret, "host", agent_nonce), "heartbeat": heartbeat}
    sock.sendall(wire.encode(welcome))
    sock.setblocking(False)
    return hello


def _next_frame(sock: socket.socket, deadline: float) -> wire.Frame:
    decoder = wire.FrameDecoder(max_body=0)
    while not passed(deadline):
        sock.settimeout(seconds_until(deadline))
        # Plain recv without room for ancillary data: the kernel drops passed descriptors here, in this thread.
        data = sock.recv(decoder.wanted)
        if not data:
            raise TransportError("the peer hung up before its hello")
        for frame in decoder.feed(data):
            return frame
    raise TransportError("no hello came in time")
