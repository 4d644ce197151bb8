"""What the supervisor knows of the namespace in a worker. A savepoint keeps this as of its moment."""


class Standing:
    """Of one worker; a fresh one has nothing."""

    def __init__(self, *, lost: str | None = None) -> None:
        self.execution: int | None = None  # after which it stands; 0: as of a restore; None: nothing is in it
        self.ran = False  # whether any cell has run in it
        self.variables = 0
        self.hollow = lost  # why it lacks the session's namespace, until it is given one
        self.untold: str | None = None  # how the one before it ended between two cells, which no reply has said

    def began(self, execution: int) -> None:
        """A cell runs in it: the host knows of all before, and goes on with what there is."""
        self.execution = execution
        self.ran = True
        self.hollow = self.untold = None

    def restored(self, variables: int) -> None:
        """It was given the namespace that cells before it have made."""
        self.execution = 0
        self.variables = variables
        self.hollow = self.untold = None

    def taken_over(self, untold: str | None) -> "Standing":
        """The same for the copy that goes on in its place."""
        copy = Standing()
        copy.execution, copy.ran, copy.variables = self.execution, self.ran, self.variables
        copy.untold = untold
        return copy

    def loss(self, kind: str) -> tuple[str, int | None] | None:
        """Whether a request of this kind is to be told that the worker ended: why, and what the present one stands at.

        An `execute` is told once; what needs the namespace as long as that is not there.
        """
        if self.hollow is not None and kind != "execute":
            return self.hollow, None
        told, self.untold = self.untold, None
        return None if told is None else (told, self.execution)
