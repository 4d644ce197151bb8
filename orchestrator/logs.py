"""The log of a server: text on a terminal, else JSON, one line each. What users' code says is in neither."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["auto", "text", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(ids)s"


class JsonLines(logging.Formatter):
    """Each record as one line of JSON, with the ids that it is about as fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **ids_of(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)


class TextLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback where there is one."""
        ids = " ".join(f"{name}={value}" for name, value in ids_of(record).items())
        record.ids = f" [{ids}]" if ids else ""
        return super().format(record)


_MOST_SESSIONS = 10_000  # whose tenants are remembered


class WhoseSessions(logging.Filter):
    """Adds the tenant to records that name a session alone, where an earlier one has named both."""

    def __init__(self) -> None:
        super().__init__()
        self._tenants: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        session, tenant = getattr(record, "session", None), getattr(record, "tenant", None)
        if session is not None and tenant is not None:
            self._tenants.pop(session, None)
            self._tenants[session] = tenant
            if len(self._tenants) > _MOST_SESSIONS:
                del self._tenants[next(iter(self._tenants))]
        elif session in self._tenants:
            record.tenant = self._tenants[session]
        return True


IDS = ("tenant", "session", "incarnation", "execution", "key")


def ids_of(record: logging.LogRecord) -> dict[str, object]:
    """What the record says it is about."""
    return {name: value for name in IDS if (value := getattr(record, name, None)) is not None}


def log_to_standard_error(choice: Format) -> None:
    """Write the log there, in the chosen way."""
    text = choice == "text" or (choice == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextLines(TEXT) if text else JsonLines())
    handler.addFilter(WhoseSessions())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("orchestrator").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
