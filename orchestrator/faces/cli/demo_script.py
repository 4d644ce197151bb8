"""What `orchestrator demo` does, as data: cells, the session each runs in, and what must come back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `python_repl`: what it must answer is checked, so that the demo fails where the product does."""

    says: str
    code: str
    session_id: str | None
    shows: tuple[str, ...] = ()  # parts of the text that the model sees
    figures: int = 0
    fails: str | None = None  # the error's code


@dataclass(frozen=True, slots=True)
class Chapter:
    """Steps with a heading; after them the variables of `lists` are listed and the sessions of `deletes` deleted."""

    heading: str
    steps: tuple[Step, ...]
    lists: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()


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
)

STATELESS = Chapter(
    "Without a session_id every call starts from nothing",
    (
        Step("A call", "total = sum(range(101))\ntotal", None, ("5050",)),
        Step("and another, which knows nothing of it", "total", None, ("NameError",), fails="exception"),
    ),
)

CHAPTERS = (CUSTOMERS, MODEL, PRICES, ISOLATION, STATELESS)
