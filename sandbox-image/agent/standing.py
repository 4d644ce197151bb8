"""What the supervisor knows of the namespace in a worker. A savepoint keeps this as of its moment."""

_REPLACED = "its process was replaced by a fresh one, for an orchestrator that has ended"


class Standing:
    """Of one worker; a fresh one has nothing."""

    def __init__(self, *, lost: str | None = None) -> None:
        self.execution: int | None = None  # after which it stands; 0: as of a restore; None: nothing is in it
        self.ran = False  # whether any cell has run in it
        self.variables = 0
        self.hollow = lost  # why it lacks the session's namespace, until it is given one
        self.untold: str | None = None  # how the one before it ended, which no reply to this host has said
        self._said: set[str] = set()  # requests whose refusals have, when others may have been on their way already
        self.replaced: str | None = None  # how it ended, as long as no cell has run since

    def began(self, execution: int) -> None:
        """A cell runs in it: the host knows of all before, and goes on with what there is."""
        self.execution = execution
        self.ran = True
        self.hollow = self.untold = self.replaced = None

    def restored(self, variables: int) -> None:
        """It was given the namespace that cells before it have made."""
        self.execution = 0
        self.variables = variables
        self.hollow = self.untold = self.replaced = None

    def copy(self) -> "Standing":
        """The same, of a fork of the worker."""
        copy = Standing()
        copy.execution, copy.ran, copy.variables = self.execution, self.ran, self.variables
        return copy

    def taken_over(self, cause: str, *, told: bool) -> "Standing":
        """The same for the copy that goes on in its place; whether a reply says so."""
        copy = self.copy()
        copy.replaced = cause
        copy.untold = None if told else cause
        return copy

    def asked_by_another(self) -> None:
        """Another host cannot know what this worker lacks, whoever was told of it."""
        self._said.clear()
        if self.execution is None:
            self.untold = self.hollow = self.hollow or _REPLACED
        else:
            self.untold = self.replaced

    def loss(self, kind: str) -> tuple[str, int | None] | None:
        """Whether a request of this kind is to be told that the worker ended: why, and what the present one stands at.

        Each kind is told once, since a save and a cell may both be on their way before the host hears of either; what
        needs the namespace is told as long as that is not there. Another one of the kind that was told is sent by a
        host that has heard it.
        """
        if self.hollow is not None and kind != "execute":
            return self.hollow, None
        if self.untold is None:
            return None
        if kind in self._said:
            self.untold = None
            return None
        self._said.add(kind)
        return self.untold, self.execution
