"""Opens an engine's attach stream with a request of its own.

Not through the SDK: it reads the answer's head through a buffer that can swallow the stream's first bytes, and then
the headers of the multiplexed stream no longer stand where they should.
"""

import socket
from collections.abc import Callable

from orchestrator.adapters.channel.transport import UnreachableError, passed, seconds_until

_MAX_HEAD = 16 * 1024
_UPGRADED = (b"101", b"200")


def attach(
    dial: Callable[[float], socket.socket], *, api_version: str, container: str, deadline: float
) -> socket.socket:
    """The raw, still multiplexed stream of the container's standard input and output.

    `dial` connects to the engine until a deadline. Raises OSError or UnreachableError.
    """
    stream = dial(deadline)
    try:
        target = f"/v{api_version}/containers/{container}/attach?stream=1&stdin=1&stdout=1"
        stream.settimeout(seconds_until(deadline))
        stream.sendall(
            f"POST {target} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        _check(_head(stream, deadline))
    except BaseException:
        stream.close()
        raise
    return stream


def _check(head: bytes) -> None:
    status = head.partition(b" ")[2][:3]
    if status not in _UPGRADED:
        raise UnreachableError(f"the engine refused to attach ({status.decode('ascii', 'replace')})")


def _head(stream: socket.socket, deadline: float) -> bytes:
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        if passed(deadline) or len(head) > _MAX_HEAD:
            raise UnreachableError("the engine did not answer the request to attach")
        stream.settimeout(seconds_until(deadline))
        # Byte by byte: the stream begins right after the head.
        byte = stream.recv(1)
        if not byte:
            raise UnreachableError("the engine hung up on the request to attach")
        head += byte
    return bytes(head)
