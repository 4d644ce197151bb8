"""Spans for OpenTelemetry. Without a configured exporter they cost next to nothing and go nowhere."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from orchestrator.adapters.telemetry.timing import Observed
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.telemetry import Act, Mark, Stage, Subject

SERVICE: Final = "session-orchestrator"
_WHOSE: Final = context.create_key("orchestrator.subject")


class Spans:
    """Follows calls; see `domain/telemetry.py`. `clock` gives the wall time in nanoseconds."""

    def __init__(self, tracer: Tracer, clock: Callable[[], int]) -> None:
        self._tracer = tracer
        self._clock = clock

    def mark(self) -> Mark:
        """Now, in the present trace."""
        return Mark(float(self._clock()), context.get_current())

    def turn(self, since: Mark, subject: Subject) -> AbstractContextManager[None]:
        """A span for the waiting; what follows belongs to the same trace."""
        where = since.trace if isinstance(since.trace, context.Context) else context.get_current()
        waited = self._tracer.start_span(
            "queue", context=where, start_time=int(since.at), attributes=_attributes(subject)
        )
        waited.end()
        token = context.attach(context.set_value(_WHOSE, subject, where))
        return Observed(lambda _failure: context.detach(token))

    def stage(self, stage: Stage, subject: Subject) -> AbstractContextManager[None]:
        """A span for the stage. A sandbox starts without knowing for whom: that is whose turn it is."""
        whose = context.get_value(_WHOSE) if subject.session is None else None
        span = self._tracer.start_span(stage, attributes=_attributes(whose if isinstance(whose, Subject) else subject))
        return Observed(lambda failure: _end(span, failure))

    def executed(self, outcome: str, subject: Subject, seconds: float) -> None:
        """What the span of the stage says."""

    def engine_failed(self) -> None:
        """What the span of the stage says."""

    def acted(self, act: Act) -> None:
        """No call's."""


def _attributes(subject: Subject) -> dict[str, str | int]:
    named = {
        "tenant": subject.tenant,
        "session": subject.session,
        "incarnation": subject.incarnation,
        "execution": subject.execution,
    }
    return {f"orchestrator.{name}": value for name, value in named.items() if value is not None}


def _end(span: Span, failure: BaseException | None) -> None:
    if failure is not None:
        # The kind alone: messages may hold what users wrote.
        span.set_status(Status(StatusCode.ERROR, type(failure).__name__))
    span.end()


def exporting_tracer(endpoint: str) -> tuple[Tracer, Callable[[], None]]:
    """A tracer whose spans go to that OTLP endpoint, over HTTP; and how what is left is sent at the end.

    Raises InvalidRequestError where the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as failure:
        raise InvalidRequestError(
            "ORCHESTRATOR_TRACES_ENDPOINT is set, and the exporter is not installed.",
            hint="Install it: pip install 'session-orchestrator[traces]'.",
        ) from failure
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)  # the SDK of the protocol traces through it, too
    return provider.get_tracer(SERVICE), provider.shutdown
