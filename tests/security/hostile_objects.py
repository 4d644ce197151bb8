"""Objects that do what they like when they are looked at, listed or saved: each costs itself, and is told by name."""

from dataclasses import dataclass

_HANGS = "while True: pass"
_EXITS = "os._exit(7)"
_CRASHES = "ctypes.string_at(1)"
_RAISES = "raise SystemExit(3)"
_GROWS = "held = [bytearray(b'x' * 10_000_000) for _ in range(200)]"
_FLOODS = "for fd in map(int, os.listdir('/proc/self/fd')):\n            try: fd > 2 and os.write(fd, b'[{\"names\": ' * 9_000)\n            except OSError: pass"
_FORGES = """lines = [b'{"asking":1,"ordinal":1e999}', b'{"size":1e999,"position":1e999}', b'{"names":5,"start":0}']
        lines += [b'{"size":%d,"position":0}' % size for size in (-1, 2**53, 2**200)]
        lines += [b'{"names":[["n",5,[],0],["n","t",-1,0],[[],[],[],[]]],"start":%d}' % number for number in range(100)]
        lines += [b'{"names":[{"a":1,"b":2,"c":3,"d":4}],"start":%d}' % number for number in range(100)]
        for fd in map(int, os.listdir('/proc/self/fd')):
            try: fd > 2 and os.write(fd, b'\\n'.join([*lines, b'']))
            except OSError: pass
        return 5"""


@dataclass(frozen=True, slots=True)
class Hostile:
    """`code` binds `hostile`. `refused` is a part of the reason for which it is not saved; None: it is saved."""

    outcome: str
    code: str
    refused: str | None = None
    type: str = "Hostile"


def _with(method: str, act: str, arguments: str = "self, *_") -> str:
    return f"class Hostile:\n    def {method}({arguments}):\n        {act}\nhostile = Hostile()"


LISTED = (
    Hostile("a_size_that_hangs_is_not_told", _with("__sizeof__", _HANGS)),
    Hostile("a_size_that_exits_is_not_told", _with("__sizeof__", _EXITS)),
    Hostile("a_size_that_crashes_is_not_told", _with("__sizeof__", _CRASHES)),
    Hostile("a_size_that_raises_is_not_told", _with("__sizeof__", _RAISES)),
    Hostile("a_size_that_grows_is_not_told", _with("__sizeof__", _GROWS)),
    Hostile("a_size_that_floods_is_not_told", _with("__sizeof__", _FLOODS)),
    Hostile("a_size_that_forges_the_listings_lines_forges_only_its_own", _with("__sizeof__", _FORGES)),
    Hostile("a_size_of_endless_digits_is_not_told", _with("__sizeof__", "return 10 ** 100_000")),
    Hostile("a_size_below_zero_is_not_told", _with("__sizeof__", "return -1")),
    Hostile("a_number_of_bytes_that_hangs_is_not_waited_for", _with("nbytes", _HANGS).replace("    def", "    @property\n    def")),
    Hostile("a_memory_usage_that_hangs_is_not_waited_for", _with("memory_usage", _HANGS)),
    Hostile("a_repr_that_hangs_is_not_asked", _with("__repr__", _HANGS)),
    Hostile("a_hash_that_hangs_is_not_asked", _with("__hash__", _HANGS)),
    Hostile("an_equality_that_hangs_is_not_asked", _with("__eq__", _HANGS)),
    Hostile("a_truth_that_hangs_is_not_asked", _with("__bool__", _HANGS)),
    Hostile("a_length_that_hangs_is_not_asked", _with("__len__", _HANGS)),
    Hostile("a_class_that_lies_is_seen_through", _with("__class__", "return int").replace("    def", "    @property\n    def")),
    Hostile(
        "a_metaclass_that_exits_whatever_it_is_asked_costs_itself",
        """
class Meta(type):
    def leave(self, *_):
        os._exit(7)
    __instancecheck__ = __subclasscheck__ = __getattribute__ = __reduce_ex__ = __repr__ = leave
class Hostile(metaclass=Meta): pass
hostile = object.__new__(Hostile)
""",
        "exit code 7",
    ),
    Hostile("a_type_of_a_name_that_disguises_is_escaped", "hostile = type('Hostile\\u202e\\x1b[2J' + 'x' * 500, (), {})()", type="Hostile\\u202e\\x1b[2J"),
)  # fmt: skip

SAVED = (
    Hostile("a_reduce_that_hangs_is_refused_alone", _with("__reduce__", _HANGS), "timed out"),
    Hostile("a_reduce_that_exits_is_refused_alone", _with("__reduce__", _EXITS), "exit code 7"),
    Hostile("a_reduce_that_crashes_is_refused_alone", _with("__reduce__", _CRASHES), "SIGSEGV"),
    Hostile("a_reduce_that_kills_itself_is_refused_alone", _with("__reduce__", "os.kill(os.getpid(), 9)"), "SIGKILL"),
    Hostile("a_reduce_that_raises_is_refused_alone", _with("__reduce_ex__", _RAISES), "SystemExit"),
    Hostile("a_reduce_without_sense_is_refused_alone", _with("__reduce__", "return 5, 6, 7"), ""),
    Hostile("a_reduce_without_end_is_refused_alone", _with("__reduce__", "return Hostile, (Hostile(),)"), ""),
    Hostile("a_state_that_exits_is_refused_alone", _with("__getstate__", _EXITS), "exit code 7"),
    Hostile("a_state_that_grows_is_refused_alone", _with("__getstate__", "return [bytearray(os.urandom(10**6) * 10) for _ in range(200)]"), ""),
    Hostile("arguments_that_exit_are_refused_alone", _with("__getnewargs_ex__", _EXITS), "exit code 7"),
    Hostile("a_state_that_does_not_load_is_refused_alone", _with("__setstate__", "raise ValueError('never')").replace("\nhostile = Hostile()", "\nhostile = Hostile()\nhostile.x = 1"), "never"),
    Hostile("a_state_that_exits_when_loaded_is_refused_alone", _with("__setstate__", _EXITS).replace("\nhostile = Hostile()", "\nhostile = Hostile()\nhostile.x = 1"), "ended the process"),
    Hostile("a_state_that_hangs_when_loaded_is_refused_alone", _with("__setstate__", _HANGS).replace("\nhostile = Hostile()", "\nhostile = Hostile()\nhostile.x = 1"), "timed out"),
    Hostile("an_attribute_that_exits_is_not_asked", _with("__getattribute__", _EXITS)),
    Hostile("a_class_that_exits_when_it_is_asked_is_not_asked", _with("__class__", _EXITS).replace("    def", "    @property\n    def")),
    Hostile("a_hash_that_exits_when_loaded_is_refused_alone", "class Hostile:\n    def __hash__(self):\n        if os.getpid() != born: os._exit(7)\n        return 1\nborn = os.getpid()\nhostile = {Hostile(): 1}", "", "dict"),
    Hostile("an_equality_that_exits_is_not_asked", _with("__eq__", _EXITS)),
    Hostile("a_weak_reference_that_calls_back_is_refused_alone", "import weakref\nclass Hostile: pass\nkept_alive = Hostile()\nhostile = weakref.ref(kept_alive, lambda _: os._exit(7))", "", "ReferenceType"),
    Hostile("a_finalizer_is_not_run_by_what_saves", _with("__del__", "open('/workspace/finalized', 'w').write('x')")),
    Hostile("an_exit_handler_is_not_run_by_what_saves", "import atexit\natexit.register(lambda: open('/workspace/finalized', 'w').write('x'))\nhostile = 1", None, "int"),
    Hostile("a_descriptor_that_exits_is_refused_alone", "class Exits:\n    def __get__(self, *_): os._exit(7)\nclass Hostile:\n    __reduce_ex__ = Exits()\nhostile = Hostile()", ""),
    Hostile("a_list_in_itself_a_million_deep_is_saved_or_refused", "hostile = []\nfor _ in range(10**6): hostile = [hostile]", "", "list"),
)  # fmt: skip
