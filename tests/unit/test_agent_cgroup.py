"""What the supervisor reads of its container's memory and processes, from trees as kernels lay them out.

Version 1 as mounted into a container on the machines of this project, version 2 as in the guest of `make matrix`.
"""

from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.test_agent_saves import load

MIB = 1024 * 1024
V1 = {
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory/memory.limit_in_bytes": f"{1024 * MIB}\n",
    "memory/memory.usage_in_bytes": f"{100 * MIB}\n",
    "memory/memory.max_usage_in_bytes": f"{300 * MIB}\n",
    "memory/memory.stat": f"cache 1\nrss 2\ninactive_file {5 * MIB}\nactive_file {3 * MIB}\ntotal_inactive_file 9\n",
    "pids/pids.current": "7\n",
}
V2 = {
    "memory.events": "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n",
    "memory.max": f"{1024 * MIB}\n",
    "memory.current": f"{100 * MIB}\n",
    "memory.peak": f"{300 * MIB}\n",
    "memory.stat": f"anon 1\nfile 2\ninactive_anon 3\nactive_anon 4\ninactive_file {5 * MIB}\nactive_file {3 * MIB}\n",
    "pids.current": "7\n",
}
FILES = ("_OOM_FILES", "_LIMIT_FILES", "_USAGE_FILES", "_PEAK_FILES", "_STATISTICS_FILES", "_PIDS_FILES")


def laid_out(tree: dict[str, str], root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The agent's module, with that tree where the kernel's would be."""
    cgroup = load("cgroup")
    for path, text in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "ascii")
    for name in FILES:
        paths = tuple(path.replace("/sys/fs/cgroup", str(root)) for path in getattr(cgroup, name))
        monkeypatch.setattr(cgroup, name, paths)
    return cgroup


@pytest.mark.parametrize("tree", [V1, V2], ids=["v1", "v2"])
def test_memory_kills_and_processes_are_read_in_either_version(
    tree: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup = laid_out(tree, tmp_path, monkeypatch)
    gauge, kills, tasks = cgroup.MemoryGauge(), cgroup.OomCounter(), cgroup.TaskCounter()
    assert (gauge.limit, gauge.used(), gauge.left()) == (1024 * MIB, 92 * MIB, 932 * MIB)
    assert tasks.read() == 7
    assert not kills.new()
    events = next(path for path in tree if "oom_kill" in tree[path])
    (tmp_path / events).write_text(tree[events].replace("oom_kill 2", "oom_kill 3"), "ascii")
    assert kills.new()
    assert not kills.new()


@pytest.mark.parametrize("tree", [V1, V2], ids=["v1", "v2"])
def test_a_peak_is_exact_where_it_is_more_than_ever(
    tree: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge = laid_out(tree, tmp_path, monkeypatch).MemoryGauge()
    gauge.begin()
    assert gauge.most() == 92 * MIB
    peak = next(path for path in tree if tree[path] == f"{300 * MIB}\n")
    (tmp_path / peak).write_text(f"{400 * MIB}\n", "ascii")
    assert gauge.most() == 392 * MIB


def test_without_a_bound_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, tree in enumerate(
        [{**V2, "memory.max": "max\n"}, {**V1, "memory/memory.limit_in_bytes": "9223372036854771712\n"}]
    ):
        gauge = laid_out(tree, tmp_path / str(number), monkeypatch).MemoryGauge()
        assert (gauge.limit, gauge.left(), gauge.has_room()) == (0, 0, True)
        monkeypatch.undo()


def test_a_kernel_that_keeps_no_peak_is_asked_for_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 before Linux 5.19."""
    gauge = laid_out(
        {path: text for path, text in V2.items() if path != "memory.peak"}, tmp_path, monkeypatch
    ).MemoryGauge()
    gauge.begin()
    (tmp_path / "memory.current").write_text(f"{200 * MIB}\n", "ascii")
    assert gauge.used() == 192 * MIB
    (tmp_path / "memory.current").write_text(f"{150 * MIB}\n", "ascii")
    assert gauge.most() == 192 * MIB


def test_where_nothing_is_counted_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in gVisor, which mounts no such tree."""
    cgroup = laid_out({}, tmp_path, monkeypatch)
    gauge, kills, tasks = cgroup.MemoryGauge(), cgroup.OomCounter(), cgroup.TaskCounter()
    assert (gauge.limit, gauge.used(), gauge.most(), tasks.read(), kills.new()) == (0, 0, 0, None, False)
    assert gauge.has_room()
