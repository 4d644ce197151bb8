"""What the tools take, as schemas; the descriptions are read by models."""

from typing import Annotated

from pydantic import BeforeValidator, Field


def _absent_as_empty(value: object) -> object:
    return "" if value is None else value


def _number_or_none(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number of seconds is wanted")  # noqa: TRY004 - pydantic reports ValueErrors only
    return None if isinstance(value, str) and value.strip().lower() in ("", "null", "none") else value


# Annotated exactly `str` beneath: the SDK would parse other strings as JSON first, and take "[1]" and "null" for
# something else than session ids, or code for an object.
OptionalSessionId = Annotated[
    str,
    BeforeValidator(_absent_as_empty),
    Field(
        description="The session to run in, named as you like (1 to 128 characters); made on first use. "
        "Leave it out for a stateless call, which starts from nothing and keeps nothing."
    ),
]
SessionId = Annotated[str, Field(description="The session's name, as given to python_repl.")]
Code = Annotated[
    str,
    Field(description="Python source, one or more statements. The value of a final expression is returned."),
]
IdempotencyKey = Annotated[
    str,
    BeforeValidator(_absent_as_empty),
    Field(
        description="A text of your choice, new for each piece of work, such as a UUID. A call that is made again with "
        "the same key in the same session is not run again: it is answered as the first one was. For clients that "
        "retry."
    ),
]
Execution = Annotated[int, Field(ge=1, description="The execution's number, as answers say it.")]
Timeout = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | None,
    BeforeValidator(_number_or_none),
    Field(description="Seconds that the code may run, at most 3600. Default: 60."),
]
