"""The first line of each side, when a relay meets the owner. Imports as little as the relay itself."""

import os
import socket
import struct
import sys

from orchestrator import __version__

GREETING = f'{{"protocol":"mcp","version":1,"product":"{__version__}"}}\n'.encode()
WELCOME = f'{{"ok":true,"product":"{__version__}"}}\n'.encode()
HANDSHAKE_SECONDS = 10.0
MAX_WELCOME_BYTES = 4096


class RelayError(Exception):
    """The relay cannot serve; the text says why and what to do."""


def greet(path: str) -> socket.socket | None:
    """A connection to the owner that listens at `path`; None where nobody does, or it is just leaving.

    Raises RelayError where the owner refuses, with its sentence.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(HANDSHAKE_SECONDS)
    try:
        link.connect(path)
        _check_peer(link)
        link.sendall(GREETING)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < MAX_WELCOME_BYTES:
            if not (data := link.recv(MAX_WELCOME_BYTES)):
                break
            answer += data
    except TimeoutError as failure:
        link.close()
        raise RelayError(f"The owner at {path} did not answer within {HANDSHAKE_SECONDS:.0f} seconds.") from failure
    except (FileNotFoundError, ConnectionError):
        link.close()
        return None
    if not answer.endswith(b"\n"):
        link.close()
        return None
    if answer != WELCOME:
        _read_welcome(answer)
    link.settimeout(None)
    return link


def _check_peer(link: socket.socket) -> None:
    """Talk only to an owner of this user's, or root's."""
    if not hasattr(socket, "SO_PEERCRED"):
        return
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    if user not in (0, os.geteuid()):
        raise RelayError(f"The owner's socket belongs to a process of user {user}, which is not to be trusted.")


def _read_welcome(answer: bytes) -> None:
    """Judge an answer that is not the usual one: a refusal, or an owner of another version."""
    import json  # noqa: PLC0415 - rarely needed, and dear

    try:
        fields = json.loads(answer)
        accepted, product, error = fields.get("ok") is True, fields.get("product"), fields.get("error")
    except (ValueError, AttributeError):
        raise RelayError("The owner's answer was not understood.") from None
    if not accepted:
        raise RelayError(str(error or "The owner refused the connection."))
    sys.stderr.write(f"orchestrator mcp: this is {__version__}, the running owner is {product}; it serves until idle\n")
