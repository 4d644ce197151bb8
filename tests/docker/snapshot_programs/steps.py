"""What random programs are made of: a beginning, and steps that build and change a session. Text, run in a sandbox.

In a step `v` and `w` are values that the session has, `n` is a number and `k` a name; what a step binds besides, the
cell that runs it removes.
"""

BEGIN = """
import numpy as np, random, threading, array, ctypes, math, json, functools, collections, types, os, sys, io, enum, itertools
import dataclasses, abc, decimal, warnings, copy
class Node:
    made = []
    def __init__(self, value): self.value = value; self.links = []; Node.made.append(self)
    @property
    def first(self): return self.__dict__.get("hidden")
    @first.setter
    def first(self, to): self.__dict__["hidden"] = to
    def grow(self, by): self.links.append(by); return self
class Slotted:
    __slots__ = ("a", "b")
class Leaf(Node, abc.ABC):
    kinds = {}
    def __init_subclass__(cls, **more): Leaf.kinds[cls.__name__] = cls; super().__init_subclass__(**more)
class Meta(type):
    count = 0
    def __new__(m, *a, **k): Meta.count += 1; return super().__new__(m, *a, **k)
class Made(metaclass=Meta): pass
class Mine(dict):
    def __missing__(self, key): return key
class Rows(list): pass
class Colour(enum.Enum):
    RED = [1]
    BLUE = {}
@dataclasses.dataclass
class Data:
    one: object
    more: list = dataclasses.field(default_factory=list)
Point = collections.namedtuple("Point", "x y")
def counter():
    count, seen = 0, []
    def up(by=1):
        nonlocal count
        count += by
        seen.append(by)
        return count
    def get(): return count, seen
    return up, get
up, get = counter()
def collect(item, into=[], *, also={}):
    into.append(item); also[len(also)] = item
    return into
@functools.wraps(collect)
def wrapped(*a): return collect(*a)
registry = {}
def register(f): registry[f.__name__] = f; return f
@functools.lru_cache
def cached(x): return [x]
def at(i):
    found = list(named.values()) if i % 3 == 0 and named else xs
    return found[i % len(found)] if found else xs
xs = [[], {}, set(), Node(1), np.zeros(8), np.zeros(40_000), bytearray(5), Slotted(), array.array("i", [1, 2, 3]),
      ctypes.c_int(1), memoryview(bytearray(16)), collections.OrderedDict(a=1), collections.deque([1], 9), Mine(), Rows([1]),
      Data(1), io.BytesIO(b"abc"), iter([1, 2, 3]), collections.defaultdict(list), random.Random(3), np.random.default_rng(1)]
xs[7].a = xs
named = {}
random.seed(0); np.random.seed(0)
"""

STEPS = """
xs.append(n)
xs.append([v])
xs.append({n: v, k: w})
xs.append(Node(v))
xs.append((v, w))
xs.append(v)
xs.append(copy.copy(v)) if isinstance(v, (list, dict, Node, Data, Rows, Mine)) else 0
xs.append(xs)
xs.append(globals())
xs.append(named)
named[n] = v
named.pop(n, None)
globals()[k] = v
globals().pop(k, None)
globals()[k] = [v, w]
globals()[k] = xs[len(xs) // 2:]
globals()[k] = (v, [w])
globals()[k] = at
isinstance(v, list) and v is not xs and v.append(w)
isinstance(v, list) and v and v is not xs and v.pop()
isinstance(v, list) and v is not xs and v.reverse()
isinstance(v, dict) and v is not globals() and v is not named and v.__setitem__(n, w)
isinstance(v, dict) and v and v is not globals() and v is not named and v.__setitem__(next(iter(v)), v.pop(next(iter(v))))
isinstance(v, collections.OrderedDict) and v and v.move_to_end(next(iter(v)))
isinstance(v, collections.defaultdict) and v[n].append(w)
isinstance(v, collections.deque) and v.appendleft(w)
isinstance(v, collections.deque) and v.rotate(1)
isinstance(v, set) and v.add(n)
isinstance(v, set) and v.discard(n)
isinstance(v, set) and v.add((n, k))
isinstance(v, Node) and v.links.append(w)
isinstance(v, Node) and setattr(v, k, w)
isinstance(v, Node) and setattr(v, "first", w)
isinstance(v, Node) and xs.append(v.grow)
isinstance(v, Node) and setattr(v, "__class__", Leaf if type(v) is Node else Node)
isinstance(v, types.MethodType) and v.__self__.links.append(n)
isinstance(v, Data) and v.more.append(w)
isinstance(v, Data) and setattr(v, "one", w)
isinstance(v, Slotted) and setattr(v, "b", w)
isinstance(v, Rows) and setattr(v, k, w)
isinstance(v, np.ndarray) and v.size and v.flags.writeable and v.dtype == "f8" and v.reshape(-1).__setitem__(n % v.size, n)
isinstance(v, np.ndarray) and v.dtype == "f8" and v.size and v.flags.writeable and np.add(v, n, out=v)
isinstance(v, np.ndarray) and v.size > 4 and xs.append(v[1:-1])
isinstance(v, np.ndarray) and v.size > 4 and xs.append(v[::-2])
isinstance(v, np.ndarray) and v.flags.c_contiguous and xs.append(v.view("u1"))
isinstance(v, np.ndarray) and v.ndim == 1 and v.size % 4 == 0 and xs.append(v.reshape(4, -1).T)
isinstance(v, np.ndarray) and v.size and xs.append(memoryview(v))
isinstance(v, np.ndarray) and setattr(v.flags, "writeable", v.flags.writeable and n > 2)
xs.append(np.full(n * 3_000, float(n)))
xs.append(np.array([v, w], dtype=object)) if not isinstance(v, np.ndarray) and not isinstance(w, np.ndarray) else 0
xs.append(np.arange(n * 2, dtype="i4")[n:])
xs.append(np.zeros(3, dtype=[("x", "i4"), ("y", "f8")])["y"])
xs.append(np.ma.array([1., 2., 3.], mask=[0, 1, 0]))
xs.append(np.float32(n))
isinstance(v, bytearray) and (xs.append(np.frombuffer(v, "u1")) if v else 0)
isinstance(v, bytearray) and v and v.__setitem__(n % len(v), n)
isinstance(v, bytearray) and xs.append(memoryview(v))
isinstance(v, memoryview) and not v.readonly and v.format == "B" and v.ndim == 1 and len(v) and v.__setitem__(n % len(v), n)
isinstance(v, memoryview) and v.ndim == 1 and xs.append(v[1:])
isinstance(v, array.array) and v.__setitem__(0, n)
isinstance(v, array.array) and xs.append(np.frombuffer(v, "i4"))
isinstance(v, array.array) and xs.append(memoryview(v))
isinstance(v, ctypes.c_int) and setattr(v, "value", n)
isinstance(v, ctypes.c_int) and ctypes.memset(ctypes.byref(v), n, 4)
isinstance(v, io.BytesIO) and v.write(b"%d" % n)
isinstance(v, io.BytesIO) and v.seek(0)
isinstance(v, type(iter([]))) and next(v, None)
xs.append(iter(v)) if isinstance(v, list) else 0
xs.append(zip([v], [w]))
xs.append(enumerate([v]))
xs.append(itertools.count(n)); next(xs[-1])
isinstance(v, dict) and v is not globals() and xs.append(v.keys())
isinstance(v, dict) and v is not globals() and xs.append(types.MappingProxyType(v))
Node.made.append(v)
Node.made.clear()
Node.shared = v
setattr(Slotted, k, v)
Node.grow = (lambda old: lambda self, by: old(self, [by]))(Node.grow) if n == 1 else Node.grow
Leaf.kinds[n] = v
Meta.count += 1
setattr(Made, k, v)
Colour.RED.value.append(n)
xs.append(Colour.BLUE)
up()
up(n)
xs.append(up)
xs.append(get)
xs.append(counter()); xs[-1][0](n)
xs.append(lambda: v)
xs.append((lambda c: lambda: c)(v))
xs.append((lambda c: [lambda: c, lambda to: [c for c in [to]]])(v))
up.__closure__[1].cell_contents.append(n)
up.__closure__[0].cell_contents = n
collect(v)
wrapped(n)
collect.__defaults__[0].append(n)
collect.__kwdefaults__["also"] = {n: v}
collect.__dict__[k] = v
collect.__defaults__ = (v if isinstance(v, list) else [],)
register(types.FunctionType(collect.__code__, globals(), k, ([],), None)); registry[collect.__name__].__kwdefaults__ = {"also": {}}
exec("def made(x=v): return " + str(n), globals()); register(made)
exec("class Node2(Node): tag = " + str(n), globals()); xs.append(Node2(v))
exec("class Twig(Leaf): tag = " + str(n), globals()); xs.append(Twig(v))
exec("def later(): return xs[" + str(n) + "], made", globals())
eval("xs.insert(0, n)")
eval("v.append(n) if isinstance(v, list) and v is not xs else None")
t = threading.Thread(target=lambda: xs.append([n])); t.start(); t.join()
t = threading.Thread(target=lambda: named.__setitem__(k, v)); t.start(); t.join()
xs.append(functools.partial(collect, v))
xs.append(types.SimpleNamespace(v=v, w=w))
xs.append(types.ModuleType(k)); setattr(xs[-1], "v", v)
xs.append(ValueError(v, w))
xs.append(Point(v, w))
xs.append(Mine(v=v)); xs[-1].own = w
xs.append(type("Dyn" + str(n), (Node,), {"v": v}))
xs.append(type(v)) if type(v).__module__ == "__main__" else 0
xs.append(cached(n))
xs.append(property(lambda self: v))
xs.append(v.append) if isinstance(v, list) else 0
math.mine = v
json.mine = up
setattr(functools, "mine" + str(n), w)
os.environ[k] = str(n)
os.environ.pop(k, None)
random.seed(n)
random.random()
np.random.seed(n)
np.random.rand(n)
isinstance(v, random.Random) and v.random()
isinstance(v, np.random.Generator) and v.random()
np.set_printoptions(precision=n + 1)
decimal.getcontext().prec = n + 3
sys.setrecursionlimit(1500 + n)
sys.path.append("/workspace/" + k)
os.makedirs("/workspace/" + k, exist_ok=True); os.chdir("/workspace/" + k)
warnings.filterwarnings("ignore", k)
globals()[k] = sys.path
globals()[k] = os.environ
globals()[k] = Node.__dict__
globals()[k] = super
globals()[k] = np.zeros
globals()[k] = None
xs.reverse()
xs[n % len(xs)] = w
len(xs) > 12 and xs.pop(n % len(xs))
len(xs) > 30 and xs.__delitem__(slice(n, n + 15))
""".strip().splitlines()

WITH_PANDAS = """
import pandas as pd
xs += [pd.DataFrame({"a": [1., 2.], "b": ["x", "y"]}), pd.Series([1., 2., 3.])]
"""

PANDAS_STEPS = """
xs.append(pd.DataFrame({"a": [1., 2., 3.], "b": list("xyz")}, index=[n, n + 1, n + 2]))
isinstance(v, pd.DataFrame) and v.__setitem__("c" + str(n), float(n))
isinstance(v, pd.DataFrame) and len(v) and v.iloc.__setitem__((0, 0), float(n))
isinstance(v, pd.DataFrame) and v.drop(columns="c" + str(n), inplace=True, errors="ignore")
isinstance(v, pd.DataFrame) and v.sort_values("a", ascending=n > 4, inplace=True)
isinstance(v, pd.DataFrame) and v.attrs.__setitem__(k, w)
isinstance(v, pd.DataFrame) and xs.append(v["a"])
isinstance(v, pd.DataFrame) and xs.append(v.copy(deep=False))
isinstance(v, pd.DataFrame) and xs.append(v["a"].to_numpy())
isinstance(v, pd.DataFrame) and xs.append(v.groupby("b"))
isinstance(v, pd.DataFrame) and v.rename(columns={"c1": "c2"}, inplace=True)
isinstance(v, pd.Series) and len(v) and v.iloc.__setitem__(0, v.iloc[-1])
isinstance(v, pd.Series) and v.replace(1., float(n), inplace=True)
xs.append(pd.Series(pd.Categorical(list("xyx"))))
xs.append(pd.Series([1, None], dtype="Int64"))
xs.append(pd.date_range("2024", periods=n))
pd.set_option("display.max_rows", n + 5)
""".strip().splitlines()
