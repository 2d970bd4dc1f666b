"""What renaming, moving and merging come to, reckoned on plain dictionaries: no library code."""

from __future__ import annotations

from collections.abc import Sequence

from .reckoning import leaves


def _parent(path: str) -> str:
    return path.rpartition("~")[0]


class Tree:
    """The nodes of a taxonomy with their status, as what each is asked, and which only point to a successor."""

    def __init__(self, nodes: dict[str, str]) -> None:
        self.nodes = nodes  # path: status
        self.asked_as: dict[str, str] = {}  # where it is another path
        self.pointers: set[str] = set()

    def asked(self) -> list[str]:
        """The task types as models are asked about them."""
        return sorted(self.asked_as.get(path, path) for path in leaves(self.nodes))

    def shown(self) -> dict[str, str]:
        """The present path of each task type, by the path as it is asked."""
        return {self.asked_as.get(path, path): path for path in leaves(self.nodes)}

    def live(self, path: str) -> None:
        """A path, and the nodes above it, are live."""
        parts = path.split("~")
        for depth in range(1, len(parts) + 1):
            self.nodes["~".join(parts[:depth])] = "live"
            self.pointers.discard("~".join(parts[:depth]))

    def relocate(self, old: Sequence[str], new: str, keep: bool) -> None:
        """Each of the old nodes, with all below it, is now the new one; what is live there stays as it is."""
        for one in old:
            if _parent(new):
                self.live(_parent(new))
            below = sorted(
                (path for path in self.nodes if f"{path}~".startswith(f"{one}~")), key=lambda p: p.count("~")
            )
            filled = {_parent(path) for path in below if path not in self.pointers}
            gone: set[str] = set()
            for path in below:
                if path not in self.pointers or (_parent(path) in gone and _parent(path) not in filled):
                    gone.add(path)
                    self._go(path, new + path[len(one) :], keep)

    def _go(self, path: str, target: str, keep: bool) -> None:
        status = self.nodes[path]
        if target not in self.nodes or (self.nodes[target] != "live" and status == "live"):
            self.nodes[target] = status
            self.asked_as[target] = self.asked_as.get(path, path) if keep else target
            pointers = self.pointers.add if path in self.pointers else self.pointers.discard
            pointers(target)
        self.nodes[path] = "retired"
        self.pointers.add(path)
