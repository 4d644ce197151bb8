"""`orchestrator doctor --bundle`: what somebody who helps needs to know, in one archive, and nothing that is secret.

No code, output, value, key or token is ever in a log of ours. What tenants have chosen as names of sessions, of keys
and of themselves is replaced.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from orchestrator import places
from orchestrator.adapters.store.health import schema_of, words_of_tenants
from orchestrator.adapters.store.records import RECORDS_NAME
from orchestrator.domain.errors import InvalidRequestError, StoreUnusableError
from orchestrator.domain.examination import Examination
from orchestrator.setting_sources import masked
from orchestrator.settings import Settings

MAX_LOG_BYTES: Final = 512 * 1024
_SECRETS: Final = re.compile(r"so_[A-Za-z0-9]+_[A-Za-z0-9_-]+|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_ABOUT: Final = """What is in here:
  report.json    what `orchestrator doctor --json` says
  settings.json  every setting and where it comes from, without passwords in addresses
  schema.sql     the tables of the records, without rows
  owner.log      the end of the log of the owner behind `orchestrator mcp`; a server logs to standard error
Names that tenants have chosen read name-…, the same name always alike.
"""


def write_bundle(target: Path, settings: Settings, origins: Mapping[str, Any], found: Examination) -> None:
    """Make the archive, readable for this user alone; an existing file is not replaced. Raises InvalidRequestError."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise InvalidRequestError(
            f"The bundle {target} cannot be made: {failure.strerror}.", hint="Name a file that is not there yet."
        ) from failure
    try:
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:  # noqa: PTH123
            for name, text in _parts(settings, origins, found):
                content = text.encode(errors="replace")
                info = tarfile.TarInfo(f"session-orchestrator-support/{name}")
                info.size, info.mode = len(content), 0o600
                archive.addfile(info, io.BytesIO(content))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _parts(settings: Settings, origins: Mapping[str, Any], found: Examination) -> Iterator[tuple[str, str]]:
    records = settings.data_dir / RECORDS_NAME
    words: Collection[str] = ()
    schema = "-- there are no records\n"
    if records.exists():
        try:
            words, schema = words_of_tenants(records), schema_of(records)
        except StoreUnusableError as error:
            schema = f"-- {error.message}\n"
    told = {name: {"value": masked(value), **origins[name]} for name, value in settings.model_dump(mode="json").items()}
    yield "README.txt", _ABOUT
    yield "report.json", without_names(json.dumps(found.as_json(), indent=2), words)
    yield "settings.json", json.dumps(told, indent=2)
    yield "schema.sql", schema
    yield "owner.log", without_names(_log(settings.data_dir / places.LOG_NAME), words)


def without_names(text: str, words: Collection[str]) -> str:
    """The text with each of these words, where it stands by itself, replaced, and whatever looks like a key or a token.

    The longest first, since one may hold another.
    """
    text = _SECRETS.sub("(secret)", text)
    for word in sorted(words, key=len, reverse=True):
        if word:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", _stand_in(word), text)
    return text


def _stand_in(word: str) -> str:
    return f"name-{hashlib.sha256(word.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _log(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MAX_LOG_BYTES))
        return file.read(MAX_LOG_BYTES).decode(errors="replace")
    return ""
