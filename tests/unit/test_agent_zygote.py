"""The zygote as the supervisor sees it, whatever becomes of it."""

import socket
from unittest.mock import Mock

from tests.unit.test_agent_saves import load

zygote_process = load("zygote_process")


def test_a_zygote_that_ended_with_a_request_unread_ends_nobody_else() -> None:
    reactor = Mock()
    zygote = zygote_process.Zygote(reactor, Mock(), Mock(), 1)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        zygote._socket = ours
        ours.send(b"worker")
        its.close()
        zygote._ready(1)
        reactor.forget.assert_called_once_with(ours.fileno())
