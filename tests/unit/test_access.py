"""A scope allows what its name says, and nothing beside it."""

import pytest

from orchestrator.domain.access import LOCAL_CALLER, SCOPES, Caller, Scope
from orchestrator.domain.errors import PermissionDeniedError

ALLOWED: dict[Scope, set[Scope]] = {"use": {"use", "read"}, "read": {"read"}, "admin": {"admin"}}


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("wanted", SCOPES)
def test_each_scope_allows_what_it_says(held: Scope, wanted: Scope) -> None:
    caller = Caller("t", "k", "name", frozenset({held}))
    assert caller.may(wanted) == (wanted in ALLOWED[held])
    if wanted not in ALLOWED[held]:
        with pytest.raises(PermissionDeniedError, match=wanted):
            caller.require(wanted)


def test_who_uses_this_process_may_do_everything() -> None:
    for scope in SCOPES:
        LOCAL_CALLER.require(scope)
