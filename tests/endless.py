"""A lease for tests of what is done under one."""


class Endless:
    """A lease that was given just now, and never ends."""

    def remaining(self) -> float:
        return 1

    def age(self) -> float:
        return 0
