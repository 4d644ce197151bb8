"""Settings that cannot be meant, by themselves or together, each as a sentence that names them. Pure."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from orchestrator.domain.hardening import MIB, SandboxProfile


def unknown_variables(environ: Mapping[str, str], fields: Iterable[str], prefix: str) -> Iterator[str]:
    """A fault for each variable that has our prefix and is no setting; an empty one is as good as unset."""
    known = {field.upper() for field in fields}
    for variable, value in environ.items():
        start, name = variable[: len(prefix)].upper(), variable[len(prefix) :].upper()
        if start == prefix and value and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{variable}: there is no such setting" + "".join(f" (is {prefix}{one} meant?)" for one in near)


def unknown_keys(keys: Iterable[str], fields: Collection[str], path: str) -> Iterator[str]:
    """A fault for each key of a configuration file that is no setting."""
    for key in keys:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            yield f"{key} in {path}: there is no such setting" + "".join(f" (is {one} meant?)" for one in near)


def ages_out_of_order(ages: Mapping[str, float]) -> Iterator[str]:
    """By the name of the setting, in the order in which they must rise; 0 is never reached."""
    given = [(name, age) for name, age in ages.items() if age]
    for (earlier, first), (later, second) in pairwise(given):
        if second <= first:
            yield f"{later} ({second:.0f} s) must be more than {earlier} ({first:.0f} s)"


def limits_that_do_not_fit(profile: SandboxProfile, prefix: str) -> Iterator[str]:
    """Into each other; whether the machine has as much, only the engine can say."""
    beside = profile.tmp + profile.shm
    if profile.workspace + beside >= profile.memory:
        yield (
            f"{prefix}SANDBOX_WORKSPACE ({profile.workspace // MIB} MiB) and {beside // MIB} MiB for /tmp and /dev/shm "
            f"must be less than {prefix}SANDBOX_MEMORY ({profile.memory // MIB} MiB), since files live there"
        )
    if profile.threads > profile.pids // 2:
        yield (
            f"{prefix}SANDBOX_THREADS ({profile.threads}) must be at most half of {prefix}SANDBOX_PIDS "
            f"({profile.pids}), which counts threads as well"
        )


def no_protections(names: Collection[str], known: Sequence[str], setting: str) -> Iterator[str]:
    """Names that a setting gives and that are none."""
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"is {near[0]} meant?" if near else f"they are {', '.join(known)}"
        yield f"{setting}: there is no protection called {name} ({meant})"
