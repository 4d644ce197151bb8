"""What `orchestrator demo` does, as data: cells, the session each runs in, and what must come back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `python_repl`: what it must answer is checked, so that the demo fails where the product does."""

    says: str
    code: str
    session_id: str | None
    shows: tuple[str, ...] = ()  # parts of the text that the model sees
    lacks: tuple[str, ...] = ()  # what must not be in it
    figures: int = 0
    fails: str | None = None  # the error's code


@dataclass(frozen=True, slots=True)
class Chapter:
    """Steps with a heading; after them the variables of `lists` are listed and the sessions of `deletes` deleted.

    `left_alone`: before that nobody calls until every session sleeps and no container is left.
    """

    heading: str
    steps: tuple[Step, ...]
    left_alone: bool = False
    lists: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Act:
    """What one client does, and what becomes of the owner process after it has left."""

    heading: str
    chapters: tuple[Chapter, ...]
    environment: Mapping[str, str]  # settings of the owner that this client's server starts
    owner: Literal["stays", "is told to end", "is killed"] = "stays"


CUSTOMERS = Chapter(
    "Customers: load, group, draw, list, delete",
    (
        Step(
            "A table of a thousand invented customers",
            """\
import numpy as np
import pandas as pd
import matplotlib.pyplot as plt

rng = np.random.default_rng(7)
customers = pd.DataFrame({
    "id": np.arange(1000),
    "age": rng.normal(38, 11, 1000).clip(18, 95).round(),
    "spending": rng.gamma(2.0, 55.0, 1000).round(2),
})
print(len(customers), "customers")
customers.head()""",
            "customers",
            ("1000 customers", "spending"),
        ),
        Step(
            "Age groups, and what each of them spends; the table is still there",
            """\
edges, names = [0, 25, 35, 45, 55, 120], ["under 25", "25-34", "35-44", "45-54", "55 and over"]
customers["group"] = pd.cut(customers["age"], edges, right=False, labels=names)
by_group = customers.groupby("group", observed=True)["spending"].agg(["count", "mean", "sum"]).round(2)
by_group""",
            "customers",
            ("under 25", "55 and over", "mean"),
        ),
        Step(
            "One figure with two panels",
            """\
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
left.hist(customers["spending"], bins=40, color="tab:blue", alpha=0.75)
left.set(title="What customers spend", xlabel="spending", ylabel="customers")
by_group["mean"].plot.bar(ax=right, color="tab:orange", rot=20)
right.set(title="Mean by age group", xlabel="", ylabel="mean spending")
figure.tight_layout()""",
            "customers",
            figures=1,
        ),
    ),
    lists=("customers",),
    deletes=("customers",),
)

MODEL = Chapter(
    "A model, built step by step",
    (
        Step(
            "Measurements to learn from, split for training and testing",
            """\
import numpy as np
from sklearn.model_selection import train_test_split

rng = np.random.default_rng(3)
X = rng.uniform(0, 10, (400, 3))
y = X @ [1.5, -2.0, 0.5] + 4 + rng.normal(0, 0.8, 400)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0)
X_train.shape, X_test.shape""",
            "model",
            ("((300, 3), (100, 3))",),
        ),
        Step(
            "Train",
            """\
from sklearn.linear_model import LinearRegression

model = LinearRegression().fit(X_train, y_train)
model.coef_.round(1)""",
            "model",
            ("array([ 1.5, -2. ,  0.5])",),
        ),
        Step(
            "Evaluate, with the model of the call before",
            """\
score = model.score(X_test, y_test)
print(f"R² on unseen data: {score:.2f}")""",
            "model",
            ("R² on unseen data: 0.9",),
        ),
    ),
    deletes=("model",),
)

PRICES = Chapter(
    "A file in the workspace, cleaned and described",
    (
        Step(
            "The first cell writes data.csv",
            """\
import csv, random

random.seed(11)
with open("data.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["product", "price"])
    for number in range(300):
        rows.writerow([f"P{number:03}", "" if number % 25 == 0 else round(random.lognormvariate(3, 0.5), 2)])""",
            "prices",
        ),
        Step(
            "Read it, drop what is missing",
            """\
import pandas as pd

products = pd.read_csv("data.csv")
known = products.dropna()
print(f"{len(products)} rows, {len(known)} with a price")""",
            "prices",
            ("300 rows, 288 with a price",),
        ),
        Step("Describe it", "print(known.describe().round(2))", "prices", ("288.0", "mean")),
        Step(
            "Draw it",
            """\
import matplotlib.pyplot as plt

known["price"].hist(bins=30)
plt.title("Prices");""",
            "prices",
            figures=1,
        ),
    ),
    deletes=("prices",),
)

ISOLATION = Chapter(
    "Two sessions know nothing of each other",
    (
        Step(
            "One session keeps a secret, as a name and as a file",
            """\
import os

secret = "only mine"
open("note.txt", "w").write(secret)""",
            "one",
            ("Value: 9",),
        ),
        Step("The other has neither the name", "secret", "two", ("NameError",), fails="exception"),
        Step("nor the file", "import os\n\nos.listdir()", "two", ("Value: []",)),
        Step("The first still has both", "secret, os.listdir()", "one", ("('only mine', ['note.txt'])",)),
    ),
    deletes=("one", "two"),
)

STATELESS = Chapter(
    "Without a session_id every call starts from nothing",
    (
        Step("A call", "total = sum(range(101))\ntotal", None, ("5050",)),
        Step("and another, which knows nothing of it", "total", None, ("NameError",), fails="exception"),
    ),
)

ASLEEP = Chapter(
    "A session that is left alone is saved, and its container goes",
    (
        Step(
            "An array, a view of it, a function and a file",
            """\
import numpy as np
from pathlib import Path

heights = np.linspace(0.0, 9.0, 10)
lower = heights[:5]
report = {"by": "Ada", "about": heights}

def mean_height():
    return float(heights.mean())

Path("field.txt").write_text("measured on Monday")""",
            "field",
            ("Value: 18",),
        ),
    ),
    left_alone=True,
    lists=("field",),
)

AWAKE = Chapter(
    "The next call wakes it, and all is as it was",
    (
        Step(
            "The view still is a view, two names still share one array, the function sees it, the file is there",
            """\
lower[0] = 5.0
float(heights[0]), report["about"] is heights, mean_height(), Path("field.txt").read_text()""",
            "field",
            ("(5.0, True, 5.0, 'measured on Monday')",),
            ("Note:",),
        ),
    ),
)

LEDGER = Chapter(
    "Sessions outlive their owner",
    (Step("A list, just before the owner is told to end", 'entries = ["rent", "books"]', "ledger"),),
)

CHANGED = Chapter(
    "Another owner, the same sessions",
    (
        Step(
            "The list was saved and is there; what is done to it now is not saved, for this owner takes its time",
            'entries.append("cinema")\ndraft = open("draft.txt", "w")\ndraft.write("in no snapshot")\nentries',
            "ledger",
            ("['rent', 'books', 'cinema']", "saved through execution 1"),
            ("Note:",),
        ),
    ),
)

ALIVE = Chapter(
    "What lived lives on: its container has outlived the owner",
    (
        Step(
            "The list with its change, and a file that is open still, which no snapshot could hold",
            'draft.close()\nentries, open("draft.txt").read()',
            "ledger",
            ("(['rent', 'books', 'cinema'], 'in no snapshot')", "the session was found alive", "after execution 2"),
            ("Lost:",),
        ),
        Step("It is told once", "entries", "ledger", ("['rent', 'books', 'cinema']",), ("Note:",)),
    ),
)

SLEPT = Chapter(
    "What slept wakes from its snapshot, two owners later",
    (
        Step(
            "The view, the array and the file of the first act",
            "float(heights[0]), lower.base is heights.base, Path('field.txt').read_text()",
            "field",
            ("(5.0, True, 'measured on Monday')",),
            ("Note:",),
        ),
    ),
)

_HASTY = {"ORCHESTRATOR_SNAPSHOT_AFTER": "0.3", "ORCHESTRATOR_HIBERNATE_AFTER": "1.5"}
_LEISURELY = {"ORCHESTRATOR_SNAPSHOT_AFTER": "600", "ORCHESTRATOR_HIBERNATE_AFTER": "600"}

ACTS = (
    Act(
        "A real MCP client starts its server",
        (CUSTOMERS, MODEL, PRICES, ISOLATION, STATELESS, ASLEEP, AWAKE, LEDGER),
        _HASTY,
        "is told to end",
    ),
    Act("Another client starts another owner", (CHANGED,), _LEISURELY, "is killed"),
    Act("A third client, a third owner", (ALIVE, SLEPT), _HASTY),
)
