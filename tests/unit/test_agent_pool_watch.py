"""How many sockets and terminals a sandbox has, as the kernel shows them; and who is told when they are too many."""

from pathlib import Path

from tests.unit.test_agent_saves import load

pool_watch, reactor = load("pool_watch"), load("reactor")

OF_4 = (
    "sockets: used 9\nTCP: inuse {tcp} orphan 3 tw 900 alloc 5000 mem 5000\nUDP: inuse {udp} mem 7\nRAW: inuse 4000\n"
)
OF_6 = "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nFRAG6: inuse 0 memory 0\n"


class Rig:
    def __init__(self, folder: Path) -> None:
        self.files = (folder / "sockstat", folder / "sockstat6")
        self.say()
        self.told: list[str] = []
        self.reactor = reactor.Reactor()
        self.terminals = folder / "pts"
        self.terminals.mkdir()
        (self.terminals / "ptmx").touch()
        self.watch = pool_watch.PoolWatch(
            self.reactor, self.told.append, sockets=tuple(map(str, self.files)), terminals=str(self.terminals)
        )

    def say(self, tcp: int = 0, udp: int = 0, tcp6: int = 0, udp6: int = 0) -> None:
        self.files[0].write_text(OF_4.format(tcp=tcp, udp=udp), "ascii")
        self.files[1].write_text(OF_6.format(tcp=tcp6, udp=udp6), "ascii")

    def look(self) -> list[str]:
        """Let the next look come; what it told."""
        (timer,) = [timer for timer in self.reactor._timers if timer.live]
        timer.cancel()
        self.told.clear()
        timer.act()
        return self.told


def test_too_many_sockets_of_all_kinds_together_are_told_of_again_and_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.say(1000, 10, 10, 4)
    assert rig.look() == []
    rig.say(1000, 10, 10, 5)
    assert rig.look() == rig.look() == [pool_watch.TOO_MANY_SOCKETS]
    rig.say()
    assert rig.look() == []


def test_too_many_terminals_are_told_of(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for number in range(64):
        (rig.terminals / str(number)).touch()
    assert rig.look() == []
    (rig.terminals / "64").touch()
    assert rig.look() == [pool_watch.TOO_MANY_TERMINALS]


def test_where_the_kernel_does_not_tell_nobody_is_ended(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for text in ("", "\n\n", "TCP: inuse\n", "TCP: inuse many\n", "TCP: mem 99999\n"):
        for path in rig.files:
            path.write_text(text, "ascii")
        assert rig.look() == [], text
    told: list[str] = []
    nowhere = reactor.Reactor()
    none = str(tmp_path / "none")
    pool_watch.PoolWatch(nowhere, told.append, sockets=(none,), terminals=none)
    nowhere._timers[0].act()
    assert told == []
