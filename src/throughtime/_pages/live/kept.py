"""Which records stay drawn when there are more than a plot can hold: evenly many of all there were."""

from __future__ import annotations


class Kept:
    """Keeps at most `most` records, one in `stride`; when they are too many, every second one goes.

    `most` is even; `count` records exist already, numbered from 0.

    >>> kept = Kept(4)
    >>> [kept.add(number) for number in range(5)], kept.places, kept.stride
    ([True, True, True, True, True], [0, 2, 4], 2)
    >>> kept.add(5), kept.add(6), kept.places
    (False, True, [0, 2, 4, 6])
    >>> Kept(4, count=10).chosen(10)
    [0, 4, 8]
    """

    def __init__(self, most: int, count: int = 0) -> None:
        self.most, self.stride = most, 1
        self.places: list[int] = []
        while -(-count // self.stride) > most:
            self.stride *= 2

    def add(self, number: int) -> bool:
        """Take one more record, by its number; False where it is left out."""
        if number % self.stride:
            return False
        self.places.append(number)
        if len(self.places) > self.most:
            self.stride *= 2
            self.places = self.places[::2]
        return True

    def chosen(self, count: int) -> list[int]:
        """List those of the first so many records that stay."""
        return list(range(0, count, self.stride))
