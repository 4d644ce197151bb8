"""Tool results: text that is complete by itself, and fields that are complete by themselves.

Some clients show the model only one of the two. Neither holds base64: pixels travel as image content only.
"""

import json
from collections.abc import Sequence

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.kept_results import KeptExecution
from orchestrator.domain.model import ExecutionResult, Namespace, SessionSummary, Variable
from orchestrator.faces import mcp_models as models
from orchestrator.faces import mcp_texts as texts
from orchestrator.faces import result_limits as limits

MAX_NAMES = 200  # of a result's `bound` and `removed`
MAX_DISPLAYS = 50
_NAMES_IN_TEXT = 30


def execution_answer(result: ExecutionResult) -> CallToolResult:
    """The answer to `python_repl` for code that was run."""
    pictures = limits.pictures_of(result.displays[:MAX_DISPLAYS])
    answer = _without_output(result, pictures)
    rest = limits.json_size(answer.model_dump_json()) + limits.json_size(_text(answer))
    output = limits.fit(result.output, limits.output_budget(pictures, rest))
    cut = result.truncated or len(output) < len(result.output)
    answer = answer.model_copy(update={"output": output, "truncated": cut})
    content: list[ContentBlock] = [TextContent(type="text", text=_text(answer))]
    content += [ImageContent(type="image", data=p.data, mime_type="image/png") for p in pictures if p.data is not None]
    return CallToolResult(
        content=content, structured_content=answer.model_dump(mode="json"), is_error=answer.status == "error"
    )


def _without_output(result: ExecutionResult, pictures: Sequence[limits.Picture]) -> models.ReplAnswer:
    error = result.error
    return models.ReplAnswer(
        status=result.status,
        output_bytes=result.output_bytes,
        value=None if result.value is None else limits.fit(result.value, limits.VALUE_BYTES),
        displays=[
            models.DisplayEntry(index=p.index, mime=p.mime, bytes=p.size, inline=p.data is not None) for p in pictures
        ],
        error=None
        if error is None
        else models.Failure(
            code=error.code,
            type=None if error.type is None else limits.short(error.type),
            message=limits.fit(error.message, limits.MESSAGE_BYTES),
            traceback=None if error.traceback is None else limits.fit(error.traceback, limits.TRACEBACK_BYTES),
            hint=error.hint,
        ),
        execution=result.execution,
        duration_ms=round(result.duration_ms, 3),
        session_id=result.session_id,
        bound=_names(result.bound),
        removed=_names(result.removed),
        saved_through=result.saved_through or None,  # 0: of the snapshot that a fork began with
        resumed_from=None
        if (resumed := result.resumed_from) is None
        else models.ResumedFromEntry(rung=resumed.rung, execution=resumed.execution),
        memory_peak_bytes=result.memory_peak or None,
        state=None if result.state is None else result.state.value,
        expires_at=None if result.expires_at is None else texts.time(result.expires_at),
        notes=_notes(result, pictures),
    )


def variables_answer(session_id: str, namespace: Namespace) -> CallToolResult:
    """The answer to `python_list_variables`."""
    found = [_variable(variable) for variable in namespace.variables]
    kept = limits.first_that_fit(found, (entry.model_dump_json() for entry in found))
    imports = [models.ImportEntry(name=limits.short(m.name), type=limits.short(m.type)) for m in namespace.imports]
    kept_imports = limits.first_that_fit(imports, (entry.model_dump_json() for entry in imports), limits.IMPORTS_BYTES)
    notes = limits.notes_that_fit(namespace.notes)
    if left_out := len(found) - len(kept):
        notes.append(f"{left_out} more variables are not listed here: the listing would be too long.")
    if left_out := len(imports) - len(kept_imports):
        notes.append(f"{left_out} more imported modules are not listed here.")
    answer = models.VariablesAnswer(
        status="ok",
        session_id=session_id,
        variable_count=len(found),
        variables=kept,
        imports=kept_imports,
        notes=notes,
    )
    lines = [f"Session {session_id!r}: {texts.count(len(found), 'variable')}."]
    if kept:
        rows = [(v.name, v.type, "unknown" if v.size_bytes is None else str(v.size_bytes)) for v in kept]
        lines += texts.table(("name", "type", "size_bytes"), rows)
    if kept_imports:
        lines.append(f"Imported modules: {', '.join(entry.name for entry in kept_imports)}")
    return _answered(answer, lines + _noted(notes))


def sessions_answer(sessions: Sequence[SessionSummary]) -> CallToolResult:
    """The answer to `python_list_sessions`."""
    found = [
        models.SessionEntry(
            session_id=session.session_id,
            created_at=texts.time(session.created_at),
            variable_count=session.variable_count,
            total_executions=session.total_executions,
            state=session.state.value,
            last_used_at=texts.time(session.last_used_at),
            expires_at=None if session.expires_at is None else texts.time(session.expires_at),
            saved_through=session.saved_through,
        )
        for session in sessions
    ]
    kept = limits.first_that_fit(found, (entry.model_dump_json() for entry in found))
    notes = []
    if left_out := len(found) - len(kept):
        notes.append(f"{left_out} more sessions are not listed here: the listing would be too long.")
    answer = models.SessionsAnswer(status="ok", session_count=len(found), sessions=kept, notes=notes)
    lines = [f"{texts.count(len(found), 'session')}."]
    if kept:
        columns = (
            "session_id",
            "created_at",
            "variable_count",
            "total_executions",
            "saved_through",
            "state",
            "last_used_at",
            "expires_at",
        )
        lines += texts.table(columns, [tuple(_cell(getattr(entry, column)) for column in columns) for entry in kept])
    return _answered(answer, lines + _noted(notes))


def _cell(field: object) -> str:
    return "none" if field is None else str(field)


def cleared_answer(session_id: str) -> CallToolResult:
    """The answer to `python_clear_session`."""
    answer = models.ClearAnswer(status="ok", session_id=session_id, cleared=True)
    return _answered(answer, [f"Session {session_id!r} is empty now; its files are kept."])


def deleted_answer(session_id: str) -> CallToolResult:
    """The answer to `python_delete_session`."""
    answer = models.DeleteAnswer(status="ok", session_id=session_id, deleted=True)
    return _answered(answer, [f"Session {session_id!r} is deleted."])


def failure_of(error: OrchestratorError) -> models.Failure:
    """What a caller is told about an error that we raised on purpose."""
    hint = error.hint or ("The same call may succeed later." if error.retryable else None)
    return models.Failure(code=error.code, message=limits.fit(error.message, limits.MESSAGE_BYTES), hint=hint)


def kept_answer(kept: KeptExecution) -> CallToolResult:
    """The answer to `python_result`."""
    if kept.result is not None:
        return execution_answer(kept.result)
    name = f"Execution {kept.execution} of session {kept.session_id!r}"
    if kept.outcome is None:
        told = models.Failure(code="busy", message=f"{name} has no answer yet.", hint="Ask again in some seconds.")
    else:
        told = models.Failure(code="not_found", message=f"{name} ended ({kept.outcome}); its answer is not kept.")
    return code_not_run_answer(told, kept.session_id)


def failed_answer(failure: models.Failure, session_id: str | None) -> CallToolResult:
    """A call that was not carried out: the fields that every tool's answer has, and no others."""
    fields: dict[str, object] = {"status": "error", "error": failure.model_dump(mode="json")}
    if session_id is not None:
        fields["session_id"] = limits.short(session_id)
    return _failed(failure, fields)


def code_not_run_answer(failure: models.Failure, session_id: str | None) -> CallToolResult:
    """The answer to `python_repl` for code that was not run: every field is there, as after a run."""
    answer = models.ReplAnswer(status="error", error=failure, session_id=session_id and limits.short(session_id))
    return _failed(failure, answer.model_dump(mode="json"))


def _failed(failure: models.Failure, fields: dict[str, object]) -> CallToolResult:
    text = "\n".join(_failure_lines(failure))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=fields, is_error=True)


def _answered(
    answer: models.VariablesAnswer | models.SessionsAnswer | models.ClearAnswer | models.DeleteAnswer,
    lines: Sequence[str],
) -> CallToolResult:
    text = TextContent(type="text", text="\n".join(lines))
    return CallToolResult(content=[text], structured_content=answer.model_dump(mode="json"))


def _text(answer: models.ReplAnswer) -> str:
    parts = []
    if answer.output:
        parts.append(answer.output.rstrip("\n"))
    if answer.truncated:
        parts.append(f"[The middle of the output was left out; the whole was {answer.output_bytes} bytes.]")
    if answer.value is not None:
        parts.append(f"Value:\n{answer.value}" if "\n" in answer.value else f"Value: {answer.value}")
    if answer.error is not None:
        parts += _failure_lines(answer.error)
    parts += [f"Figure {d.index} is attached ({d.mime}, {d.bytes} bytes)." for d in answer.displays if d.inline]
    parts += _noted(answer.notes)
    return "\n".join((*parts, _summary(answer)))


def _summary(answer: models.ReplAnswer) -> str:
    facts: list[str] = [answer.status]
    if answer.session_id is None:
        facts.append("stateless call, nothing is kept")
    else:
        facts.append(f"session {answer.session_id!r}")
    if answer.execution is not None:
        facts.append(f"execution {answer.execution}")
    if answer.duration_ms is not None:
        facts.append(texts.duration(answer.duration_ms))
    for label, names in (("bound", answer.bound), ("removed", answer.removed)):
        if names and answer.session_id is not None:
            more = f" and {len(names) - _NAMES_IN_TEXT} more" if len(names) > _NAMES_IN_TEXT else ""
            facts.append(f"{label} {', '.join(names[:_NAMES_IN_TEXT])}{more}")
    if answer.resumed_from is not None:
        facts.append(_resumed(answer.resumed_from))
    if answer.state not in (None, "ready"):
        facts.append(f"the session is {answer.state}")
    if answer.saved_through is not None:
        facts.append(f"saved through execution {answer.saved_through}")
    if not (answer.output or answer.value is not None or answer.error is not None or answer.displays):
        facts.append("no output")
    return f"[{' · '.join(facts)}]"


def _resumed(where: models.ResumedFromEntry) -> str:
    execution = "nothing" if where.execution is None else f"execution {where.execution}"
    return f"resumed from {execution} ({where.rung.replace('_', ' ')})"


def _failure_lines(failure: models.Failure) -> list[str]:
    kind = f"{failure.type}: " if failure.type else ""
    lines = [f"Error ({failure.code}): {kind}{failure.message}"]
    if failure.traceback:
        lines.append(failure.traceback.rstrip("\n"))
    if failure.hint:
        lines.append(f"Hint: {failure.hint}")
    return lines


def _notes(result: ExecutionResult, pictures: Sequence[limits.Picture]) -> list[str]:
    notes = limits.notes_that_fit(result.notes)
    notes += [
        f"Display {p.index} ({p.mime}, {p.size} bytes) is not attached: {p.left_out}." for p in pictures if p.left_out
    ]
    if (unlisted := len(result.displays) - len(pictures)) > 0:
        notes.append(f"{unlisted} more displays are not listed.")
    for label, names in (("bound", result.bound), ("removed", result.removed)):
        if len(names) > (listed := len(_names(names))):
            notes.append(f"{len(names)} names were {label}; {listed} of them are listed.")
    return notes


def _noted(notes: Sequence[str]) -> list[str]:
    return [f"Note: {note}" for note in notes]


def _names(names: Sequence[str]) -> list[str]:
    shortened = [limits.short(name) for name in names[:MAX_NAMES]]
    return limits.first_that_fit(shortened, map(json.dumps, shortened), limits.NAMES_BYTES)


def _variable(variable: Variable) -> models.VariableEntry:
    return models.VariableEntry(
        name=limits.short(variable.name), type=limits.short(variable.type), size_bytes=variable.size_bytes
    )


def argument_failure(faults: Sequence[tuple[str, str]]) -> models.Failure:
    """Arguments that do not fit a tool's schema: (argument, fault) each."""
    named = "; ".join(f"{json.dumps(name)}: {fault}" for name, fault in faults)
    return models.Failure(
        code="invalid_request",
        message=limits.fit(f"The arguments do not fit: {named}.", limits.MESSAGE_BYTES),
        hint="Call again with arguments that fit the tool's input schema.",
    )
