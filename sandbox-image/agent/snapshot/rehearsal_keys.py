"""What a rehearsal's outcome depends on, as a digest: where none of it changed, a group that loaded loads again."""

import os
from collections.abc import Callable, Sequence

from agent import plain_json, pristine
from agent.snapshot.dump import Dump
from agent.snapshot.nodes import Group
from agent.snapshot.pieces import digest_of, digests_in
from agent.snapshot.process_state import Taken

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]


class Keys:
    """Of one snapshot's groups: their bytes, the code that these load with, and what is set before anything loads."""

    def __init__(
        self, seed: int, taken: Taken, modules: dict[str, str], dump_of: Callable[[Group], Dump | None]
    ) -> None:
        self._seed = seed
        self._dump_of = dump_of
        self._before = plain_json.write([taken.early, taken.imports, taken.files]).decode()
        self._modules = plain_json.write(modules).decode()
        self._code: Sequence[Group] = ()
        self._all_code: str | None = None
        self._contents: dict[Group, str] = {}
        self._needed: dict[Group, dict[Group, None]] = {}

    def begin(self, code: Sequence[Group]) -> None:
        """Groups of nothing but code, in the order in which they load."""
        self._code = code

    def content(self, group: Group, dump: Dump) -> str:
        """The digest of its bytes alone."""
        known = self._contents.get(group)
        if known is None:
            beside = [
                digest.encode() for part in (*dump.arrays, *dump.buffers) for digest in digests_in(part, self._seed)
            ]
            known = self._contents[group] = digest_of((*dump.parts, *beside), self._seed)
        return known

    def key(self, group: Group, dump: Dump) -> str:
        """The digest of all that its loading depends on."""
        parts = [self.content(group, dump), self._before]
        if group.needs:
            parts += [self._content_of(needed) for needed in self._transitively(group)]
            parts.append(self._modules)
            if len(group.code) < len(group.nodes):
                parts.append(self._digest_of_code())
        return digest_of([part.encode() for part in parts], self._seed)

    def _digest_of_code(self) -> str:
        """Code that is needed calls other code by its name, which no pickle tells."""
        if self._all_code is None:
            self._all_code = digest_of([self._content_of(group).encode() for group in self._code], self._seed)
        return self._all_code

    def _content_of(self, group: Group) -> str:
        dump = self._dump_of(group)
        # Of what was too large to be kept nothing is known: whoever needs it is tried again.
        return os.urandom(16).hex() if dump is None or not dump.parts else self.content(group, dump)

    def _transitively(self, group: Group) -> dict[Group, None]:
        """All that it needs. Groups load after those that they need, so these are known or soon found."""
        known = self._needed.get(group)
        if known is None:
            known = self._needed[group] = {}
            pending = list(reversed(group.needs))
            while pending:
                one = pending.pop()
                if one not in known:
                    known[one] = None
                    pending += reversed(one.needs)
        return known
