"""The reply to the last cell that has ended, for another host that was not there to hear it."""

from agent.channel import Channel


class KeptResult:
    """And the requests for the one to the cell that runs."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._kept: tuple[int, bytes] | None = None  # the cell's number, and the reply
        self._awaited: list[int] = []

    def asked(self, request: int, number: object, running: int | None) -> None:
        """Answer as the order of that number was answered, or will be when it ends."""
        if type(number) is not int:
            self._channel.refuse(request, "malformed", "a request for a result names an execution")
        elif number == running:
            self._awaited.append(request)
        elif self._kept is not None and self._kept[0] == number:
            self._channel.reply_alike(request, self._kept[1])
        else:
            self._channel.refuse(request, "forgotten", "no reply to an execution of that number is kept")

    def keep(self, number: int, reply: bytes) -> None:
        """That cell has ended."""
        self._kept = number, reply
        for request in self._awaited:
            self._channel.reply_alike(request, reply)
        self._awaited.clear()

    def never(self) -> None:
        """What was to be run was not."""
        for request in self._awaited:
            self._channel.refuse(request, "forgotten", "it was not run")
        self._awaited.clear()
