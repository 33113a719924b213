"""A lease for tests of what is done under one."""


class Endless:
    """A lease that never ends."""

    mark: int | None = None

    def remaining(self) -> float:
        return 1
