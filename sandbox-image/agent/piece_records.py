"""Records between the supervisor and the processes that save and restore: a small fixed header, then data.

They go through pipes, one way each: from what saves to the supervisor, and from the supervisor to what restores. User
code can reach either end on the other side, so the supervisor believes no record.
"""

import builtins
import struct

__builtins__ = dict(vars(builtins))  # type: ignore[assignment]  # cells empty those that all share

HEADER = struct.Struct(">cBxxII16s")  # kind, encoding, raw size or flag, length of the data, raw digest
MAX_PIECE = 1024 * 1024  # bytes, encoded and raw
NO_DIGEST = bytes(16)

ENCODINGS = ("raw", "zstd")  # by their numbers in a header

# Both ways.
PIECE = b"P"
# To what restores.
DAMAGED = b"D"  # in a piece's place; the data say why
# From what saves.
FROZEN = b"F"  # the flag: whether the files were read
REHEARSE = b"Q"  # asks for a rehearsal, which comes over the socket
FAILED = b"X"  # the data say why
MANIFEST, NAMESPACE_BODY, WORKSPACE_BODY = b"M", b"N", b"W"
NAMESPACE_DIGESTS, WORKSPACE_DIGESTS = b"K", b"L"  # of all that the bodies refer to, 16 bytes each
REHEARSED = b"H"  # digests of groups that surely load, 16 bytes each
REMARKS = b"T"  # JSON
REFUSED = b"V"  # JSON: the values that hung or ended a process so far, also where the save fails then
DONE = b"R"  # JSON, the last record

# Over the socket to what saves, one message each.
GO, GIVE_UP, REHEARSAL, NO_REHEARSAL = b"g", b"x", b"r", b"n"
