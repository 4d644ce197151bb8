"""SIGHUP: the configuration and the certificate are read again, or the terminal is gone and the server ends."""

import asyncio
import hashlib
import os
import pty
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mcp.harness import PATIENCE, Installation, eventually
from tests.web.test_serve import PROGRAM, ROOT, Server


@pytest.fixture
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("s"))


def certificate(path: Path) -> str:
    """Put a new one there; its digest."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "-", "-days", "2"]
    made = subprocess.run([*command, "-subj", "/CN=localhost"], check=True, capture_output=True).stdout
    path.write_bytes(made)
    pem = made[made.index(b"-----BEGIN CERTIFICATE") :].decode()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


async def shown(server: Server) -> str:
    """The digest of the certificate that a connection meets."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    wire = await server.connect(stranger)
    link = wire.writer.get_extra_info("ssl_object")
    return hashlib.sha256(link.getpeercert(binary_form=True)).hexdigest()


async def test_a_renewed_certificate_is_shown_to_new_connections_and_a_broken_one_is_not(
    installation: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "both.pem"
    first = certificate(file)
    server = await Server.start(installation, http_certificate=str(file))
    try:
        await renewed(server, file, first)
    finally:
        server.signal(signal.SIGTERM)
        log = await server.end()
    assert "the certificate is not taken over: " in log


async def renewed(server: Server, file: Path, first: str) -> None:
    installation = server.installation
    assert await shown(server) == first
    second = certificate(file)
    server.signal(signal.SIGHUP)
    await eventually(lambda: installation.events.count("reloaded") == 1, "the configuration is read again")
    assert await shown(server) == second != first
    await asyncio.to_thread(file.write_text, "nothing of the kind")
    server.signal(signal.SIGHUP)
    await eventually(lambda: installation.events.count("reloaded") == 2, "the configuration is read again")
    assert await shown(server) == second


async def test_a_server_whose_terminal_is_gone_ends_in_order(installation: Installation) -> None:
    ours, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import fcntl, os, runpy, termios; os.setsid(); fcntl.ioctl({its}, termios.TIOCSCTTY, 0); os.close({its}); "
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')",
        pass_fds=(its,),
        stdin=its,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**installation.environment, "PYTHONPATH": str(ROOT), "ORCHESTRATOR_HTTP_PORT": "0"},
    )
    os.close(its)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert b"http://" in await process.stdout.readline()
            process.send_signal(signal.SIGHUP)  # by somebody, at a terminal that is there
            await eventually(lambda: "reloaded" in installation.events, "the configuration is read again")
            os.close(ours)
            ours = -1
            await process.communicate()
        assert process.returncode == 0
        assert installation.events[-2:] == ["closing", "closed"]
    finally:
        if ours >= 0:
            os.close(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
