"""The frames of PROTOCOL.md: both codecs agree, and nothing hostile gets through or costs more than its own bytes."""

import hashlib
import hmac
import importlib.util
import json
import tracemalloc
from collections.abc import Callable, Iterable
from functools import cache
from itertools import cycle, pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain import wire

GOLDEN = json.loads(Path(__file__).with_name("golden_frames.json").read_text("utf-8"))
AGENT_WIRE = Path(__file__).parents[2] / "sandbox-image" / "agent" / "wire.py"

Decoded = tuple[dict[str, Any], tuple[bytes, ...]]
Codec = tuple[Callable[[bytes], list[Decoded]], ModuleType]


@cache
def agent_wire() -> ModuleType:
    """The agent's codec, loaded from its file: the agent is no package of the host's."""
    spec = importlib.util.spec_from_file_location("agent_wire", AGENT_WIRE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["host", "agent"])
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param == "host":
        return lambda raw: [(dict(f.header), f.parts) for f in wire.FrameDecoder().feed(raw)], wire
    module = agent_wire()
    return lambda raw: [(header, tuple(parts)) for header, parts in module.Decoder().feed(raw)], module


@pytest.mark.parametrize("golden", GOLDEN["frames"], ids=lambda golden: golden["name"])
def test_golden_frame_is_written_and_read_alike_by_both_codecs(codec: Codec, golden: dict[str, Any]) -> None:
    decode, module = codec
    parts = [bytes.fromhex(part) for part in golden["parts"]]
    raw = bytes.fromhex(golden["bytes"])
    assert module.encode(golden["header"], parts) == raw
    assert decode(raw) == [(golden["header"], tuple(parts))]


@pytest.mark.parametrize("golden", GOLDEN["refused"], ids=lambda golden: golden["name"])
def test_bad_frame_is_refused_by_both_codecs(codec: Codec, golden: dict[str, Any]) -> None:
    decode, module = codec
    with pytest.raises(module.ProtocolViolationError):
        decode(bytes.fromhex(golden["bytes"]))


@pytest.mark.parametrize("golden", GOLDEN["proofs"])
def test_proof_is_the_hmac_that_the_page_describes_in_both_codecs(codec: Codec, golden: dict[str, str]) -> None:
    _, module = codec
    message = f"{golden['role']}:{golden['nonce']}".encode()
    assert golden["proof"] == hmac.new(bytes.fromhex(golden["secret"]), message, hashlib.sha256).hexdigest()
    assert module.proof(golden["secret"], golden["role"], golden["nonce"]) == golden["proof"]


@pytest.mark.parametrize("claimed", [None, 1, [], "", "0" * 64, "é", "\ud800"])
def test_whatever_is_no_proof_is_not_proven_and_raises_nothing(codec: Codec, claimed: object) -> None:
    assert codec[1].proven("00" * 32, "agent", "00", claimed) is False


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=8).filter(lambda key: key != "parts"), json_values, max_size=4).map(
    lambda fields: {**fields, "type": "reply"}
)
frames = st.tuples(headers, st.lists(st.binary(max_size=40), max_size=5))


def chunks(raw: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in pairwise(edges)]


@given(st.lists(frames, max_size=4), st.lists(st.integers(min_value=0), max_size=12))
def test_frames_survive_any_cutting_of_the_stream(
    sent: list[tuple[dict[str, Any], list[bytes]]], cuts: list[int]
) -> None:
    raw = b"".join(wire.encode(header, parts) for header, parts in sent)
    decoder = wire.FrameDecoder()
    seen = [frame for chunk in chunks(raw, cuts) for frame in decoder.feed(chunk)]
    assert [(dict(frame.header), list(frame.parts)) for frame in seen] == sent


@given(st.lists(frames, max_size=4), st.lists(st.integers(min_value=100, max_value=70_000), min_size=1))
def test_frames_are_the_same_where_they_are_read_into_the_decoder(
    sent: list[tuple[dict[str, Any], list[bytes]]], sizes: list[int]
) -> None:
    # Between small frames, one whose header and one whose body are longer than what is read ahead.
    sent = [*sent, ({"type": "x", "y": "z" * 65_000}, []), ({"type": "x"}, [bytes(9), b"a" * 100_000]), *sent]
    stream = memoryview(b"".join(wire.encode(header, parts) for header, parts in sent))
    decoder, seen, reads = wire.FrameDecoder(), list[wire.Frame](), cycle(sizes)
    while stream:
        room = decoder.room()
        count = min(len(room), len(stream), next(reads))
        assert count
        room[:count] = stream[:count]
        stream = stream[count:]
        seen += decoder.filled(count)
    assert [(dict(frame.header), list(frame.parts)) for frame in seen] == sent


@given(st.lists(frames, max_size=4), st.lists(st.integers(min_value=100, max_value=70_000), min_size=1))
def test_the_agent_reads_large_bodies_to_where_they_stay_and_the_rest_as_it_comes(
    sent: list[tuple[dict[str, Any], list[bytes]]], sizes: list[int]
) -> None:
    sent = [*sent, ({"type": "x"}, [b"b" * 200_000]), ({"type": "x"}, [bytes(9), b"a" * 100_000]), *sent]
    stream = b"".join(wire.encode(header, parts) for header, parts in sent)
    decoder, seen, reads = agent_wire().Decoder(), list[Any](), cycle(sizes)
    was_read_into = False
    while stream:
        count = min(len(stream), next(reads))
        if decoder.room:
            was_read_into = True
            count = min(count, len(decoder.room))
            decoder.room[:count] = stream[:count]
            seen += decoder.filled(count)
        else:
            seen += decoder.feed(stream[:count])
        stream = stream[count:]
    assert seen == sent
    assert was_read_into


def test_body_of_a_large_frame_is_allocated_once() -> None:
    data = bytes(8_000_000)
    stream = memoryview(wire.encode({"type": "piece"}, [data]))
    decoder, seen = wire.FrameDecoder(), list[wire.Frame]()
    tracemalloc.start()
    while stream:
        room = decoder.room()
        count = min(len(room), len(stream), 200_000)
        room[:count] = stream[:count]
        stream = stream[count:]
        seen += decoder.filled(count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen[0].parts == (data,)
    assert peak < 1.1 * len(data)


def test_body_is_not_allocated_where_its_parts_do_not_add_up_to_it() -> None:
    header = b'{"type":"piece","parts":[1]}'
    tracemalloc.start()
    with pytest.raises(wire.ProtocolViolationError):
        list(wire.FrameDecoder().feed(wire.PREFIX.pack(b"SO", 1, len(header), 8_000_000) + header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * wire.READ_AHEAD


@given(frames)
def test_reader_that_takes_only_what_is_wanted_stops_at_the_end_of_the_frame(
    sent: tuple[dict[str, Any], list[bytes]],
) -> None:
    stream = wire.encode(*sent) + b"what follows"
    decoder, taken, seen = wire.FrameDecoder(), 0, list[wire.Frame]()
    while not seen:
        wanted = decoder.wanted
        assert wanted > 0
        seen += decoder.feed(stream[taken : taken + wanted])
        taken += wanted
    assert stream[taken:] == b"what follows"


@given(st.binary(max_size=400))
def test_random_bytes_give_frames_or_a_violation_and_nothing_else(raw: bytes) -> None:
    try:
        list(wire.FrameDecoder().feed(b"SO\x01" + raw))
    except wire.ProtocolViolationError:
        return


def test_deeply_nested_header_is_a_violation_and_no_crash(codec: Codec) -> None:
    decode, module = codec
    header = b'{"type":"ping","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    with pytest.raises(module.ProtocolViolationError):
        decode(wire.PREFIX.pack(b"SO", 1, len(header), 0) + header)


def test_announced_size_is_refused_before_anything_is_allocated_for_it() -> None:
    prefix = wire.PREFIX.pack(b"SO", 1, 0xFFFFFFFF, 0xFFFFFFFF)
    tracemalloc.start()
    with pytest.raises(wire.ProtocolViolationError):
        list(wire.FrameDecoder().feed(prefix))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * wire.READ_AHEAD


def test_smaller_cap_for_bodies_holds_before_a_peer_is_proven() -> None:
    decoder = wire.FrameDecoder(max_body=0)
    with pytest.raises(wire.ProtocolViolationError):
        list(decoder.feed(wire.encode({"type": "hello"}, [b"x"])))


def test_reader_that_stops_at_the_first_bad_frame_pays_for_no_more() -> None:
    """A flood is judged frame by frame: the second one is not even parsed."""
    first, second = wire.encode({"type": "ping"}), wire.PREFIX.pack(b"SO", 1, 2, 0) + b"[]"
    cut = wire.FrameDecoder().feed(first + second)
    assert next(cut).type == "ping"
    with pytest.raises(wire.ProtocolViolationError):
        next(cut)


@pytest.mark.parametrize(
    ("header", "parts"),
    [({"type": "x" * 70_000}, []), ({"type": "x"}, [bytes(9_000_000)]), ({"type": "x"}, [b""] * 65)],
)
def test_frame_over_the_caps_is_not_even_written(header: dict[str, Any], parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match="over the protocol's caps"):
        wire.encode(header, parts)


@given(st.text(max_size=40) | json_values.map(json.dumps), st.text(" \t\n\r\f\v\x00\xa0]},", max_size=3))
def test_header_is_read_by_the_agent_as_the_host_reads_it(text: str, around: str) -> None:
    """The agent reads with what the module json wraps: what the module adds must not be missing."""
    raw = f'{around}{{"type":"ping","x":{text}}}{around}'.encode()
    framed = wire.PREFIX.pack(b"SO", 1, len(raw), 0) + raw
    agent = agent_wire()
    try:
        expected = [dict(frame.header) for frame in wire.FrameDecoder().feed(framed)]
    except wire.ProtocolViolationError:
        with pytest.raises(agent.ProtocolViolationError):
            agent.Decoder().feed(framed)
    else:
        assert [header for header, _ in agent.Decoder().feed(framed)] == expected


@given(frames)
def test_frame_is_written_by_the_agent_as_the_host_writes_it(sent: tuple[dict[str, Any], list[bytes]]) -> None:
    assert agent_wire().encode(*sent) == wire.encode(*sent)


@given(frames, st.integers(0, 2**53), st.integers(0, 2**53))
def test_reply_is_readdressed_by_the_agent_as_if_it_were_written_anew(
    sent: tuple[dict[str, Any], list[bytes]], first: int, second: int
) -> None:
    header, parts = sent
    reply = wire.encode({**header, "id": first}, parts)
    assert agent_wire().readdressed(reply, second) == wire.encode({**header, "id": second}, parts)


def test_reply_whose_other_id_would_not_fit_is_not_readdressed() -> None:
    room = wire.MAX_HEADER - len(wire.encode({"type": "reply", "id": 1, "x": ""})) + wire.PREFIX.size
    reply = wire.encode({"type": "reply", "id": 1, "x": "x" * room})
    assert agent_wire().readdressed(reply, 2) == wire.encode({"type": "reply", "id": 2, "x": "x" * room})
    with pytest.raises(ValueError, match="over the protocol's caps"):
        agent_wire().readdressed(reply, 10)


@pytest.mark.parametrize(
    ("value", "error"), [(float("nan"), ValueError), (float("-inf"), ValueError), (b"", TypeError)]
)
def test_what_json_cannot_say_is_not_written(codec: Codec, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        codec[1].encode({"type": "ping", "x": value})


@given(st.binary(min_size=32, max_size=32), st.text(max_size=80), st.text(max_size=80))
def test_proofs_of_the_agent_are_those_of_the_host(secret: bytes, role: str, nonce: str) -> None:
    agent = agent_wire()
    proof = wire.proof(secret.hex(), role, nonce)
    assert agent.proof(secret.hex(), role, nonce) == proof
    assert agent.proven(secret.hex(), role, nonce, proof)
    assert not agent.proven(secret.hex(), role, nonce, proof[:-1] + ("1" if proof[-1] == "0" else "0"))
