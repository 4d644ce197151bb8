"""Runs inside the sandbox image: each case in a session of its own, saved, and restored in a fresh process.

This process stays as pristine as the zygote is; sessions, restores and rehearsals are its forks. One line of JSON for
each case goes to stdout.
"""

import importlib
import json
import linecache
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from types import ModuleType
from typing import Any

sys.path.insert(0, "/opt/agent")

from agent.snapshot import (  # type: ignore[import-not-found]
    keeper,
    process_state,
    rehearsing,
    restoring,
    saving,
)
from agent.snapshot.groups import Limits  # type: ignore[import-not-found]
from agent.snapshot.pieces import unpack  # type: ignore[import-not-found]

SEED = 20_261_124
BOUND = 60.0
REHEARSALS = 3


def main(cases: str, preload: list[str]) -> None:
    for name in preload:
        importlib.import_module(name)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "cases", f"{cases}.txt"), encoding="utf-8") as file:
        table = read_cases(file.read())
    for case in table:
        began = time.monotonic()
        faults = run(case)
        print(json.dumps({"case": case["name"], "faults": faults, "seconds": time.monotonic() - began}), flush=True)


def read_cases(text: str) -> list[dict[str, Any]]:
    """The table: a `===` line names a case, `---` lines divide it."""
    cases = []
    for block in text.split("\n=== ")[1:]:
        name, *parts = block.split("\n--- ")
        case: dict[str, Any] = {"name": name.strip(), "cells": [], "check": "", "refused": {}}
        for part in parts:
            kind, _, body = part.partition("\n")
            if kind == "cell":
                case["cells"].append(body)
            elif kind == "check":
                case["check"] = body
            elif kind == "refused":
                pairs = [line.partition(":") for line in body.splitlines() if line]
                case["refused"] = {key: value.strip() for key, _, value in pairs}
            elif kind == "options":
                pairs = [line.partition(":") for line in body.splitlines() if line]
                case.update({key: json.loads(value) for key, _, value in pairs})
        cases.append(case)
    return cases


def run(case: dict[str, Any]) -> list[str]:
    first = session(case)
    if isinstance(first, str):
        return [first]
    faults = refusals(case, first)
    second = wake(case, first)
    if isinstance(second, str):
        return [*faults, second]
    faults += second["faults"]
    if case.get("stable", True) and not case.get("refused") and second["pieces"] - first["pieces"].keys():
        faults.append("the restored session is saved as other bytes: " + second["difference"])
    return faults


def refusals(case: dict[str, Any], first: dict[str, Any]) -> list[str]:
    faults = []
    expected = dict(case.get("refused", {}))
    for name, _, _, _, status, reason, _, _ in first["names"]:
        if status == "refused" and name not in expected:
            faults.append(f"{name} was refused: {reason}")
        elif status != "refused" and name in expected:
            faults.append(f"{name} was not refused")
        elif status == "refused" and expected[name] not in reason:
            faults.append(f"{name} was refused because {reason}")
    return faults


def in_fork(act: Any) -> Any:
    """What `act` returns in a fork of this process, or a text about how it failed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            signal.alarm(int(BOUND))
            result = act()
        except BaseException:
            result = traceback.format_exc()
        with os.fdopen(writing, "wb") as file:
            pickle.dump(result, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    status = os.waitpid(pid, 0)[1]
    return pickle.loads(data) if data else f"the process ended with {status}"


def fresh_main() -> dict[str, Any]:
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = module
    process_state.mark()
    return module.__dict__


def execute(namespace: dict[str, Any], text: str, number: int) -> None:
    name = f"<cell {number}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)


def session(case: dict[str, Any]) -> Any:
    """Run the cells and save; pieces come back through a file, since the children that emit them are others."""
    rehearsals = [rehearsal() for _ in range(REHEARSALS)]
    try:
        return in_fork(lambda: save_session(case, rehearsals))
    finally:
        for connection, pid in rehearsals:
            connection.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def save_session(case: dict[str, Any], rehearsals: list[tuple[socket.socket, int]]) -> Any:
    namespace = fresh_main()
    for number, text in enumerate(case["cells"], 1):
        execute(namespace, text, number)
    waiting = [connection for connection, _ in rehearsals]
    limits = Limits(**case.get("limits", {}))
    order = saving.Order(
        seed=SEED,
        limits=limits,
        compress=True,
        rehearse=lambda: waiting.pop() if waiting else None,
        rehearsal_bound=case.get("rehearsal_bound", 10.0),
    )
    return save(namespace, order, case.get("silence", 2.0))


def save(namespace: dict[str, Any], order: saving.Order, silence: float) -> Any:
    path = f"/tmp/saved-{os.getpid()}"
    pieces: dict[str, bytes] = {}

    def emit(digest: bytes, size: int, encoding: str, data: Any) -> None:
        raw = bytearray(size)
        unpack(encoding, bytes(data), size, memoryview(raw))
        pieces[digest.hex()] = bytes(raw)

    def finish(saved: saving.Saved) -> None:
        with open(path, "wb") as file:
            pickle.dump({"names": saved.names, "body": saved.body, "pieces": pieces, "remarks": saved.remarks}, file)

    before = process_state.before_fork()

    def in_child() -> None:
        keeper.settle()
        state = process_state.take(namespace, before)
        keeper.keep(
            namespace,
            replace(order, state=state, early=process_state.early(), imports=process_state.imports(namespace)),
            emit,
            finish,
            silence=silence,
        )

    pid = os.fork()
    if pid == 0:
        try:
            in_child()
        except BaseException:
            with open(path + ".failed", "w") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    if not os.path.exists(path):
        with open(path + ".failed") as file:
            return "not saved: " + file.read()
    with open(path, "rb") as data:
        saved = pickle.load(data)
    os.unlink(path)
    return saved


def wake(case: dict[str, Any], first: dict[str, Any]) -> Any:
    return in_fork(lambda: restore_and_check(case, first))


def restore_and_check(case: dict[str, Any], first: dict[str, Any]) -> Any:
    namespace = fresh_main()
    asked: list[str] = []

    def fetch(digest: str, _size: int, target: memoryview) -> None:
        asked.append(digest)
        target[:] = first["pieces"][digest]

    report = restoring.restore(namespace, first["body"], fetch, SEED, bound=5.0)
    faults = [f"{name} was lost: {why}" for name, why in [*report.lost, *report.state_lost]]
    if asked != restoring.wanted(first["body"]):
        faults.append("pieces were not asked for in their order")
    again = save(namespace, saving.Order(seed=SEED), 5.0)
    difference = "" if isinstance(again, str) else differences(first["body"], again["body"])
    try:
        execute(namespace, case["check"], 1_000)
    except BaseException:
        faults.append(traceback.format_exc())
    if isinstance(again, str):
        return {"faults": [*faults, again], "pieces": set(), "difference": ""}
    return {"faults": faults, "pieces": set(again["pieces"]), "difference": difference}


def differences(one: bytes, other: bytes) -> str:
    def digests(body: bytes) -> dict[str, str]:
        return {
            str([row.get(key) for key in ("code", "names", "state")]): row["digest"]
            for row in json.loads(body)["groups"]
        }

    before, after = digests(one), digests(other)
    return ", ".join(name for name in after if before.get(name) != after[name])


def rehearsal() -> tuple[socket.socket, int]:
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        process_state.mark()
        rehearsing.serve(its, os._exit)
    its.close()
    return ours, pid


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
