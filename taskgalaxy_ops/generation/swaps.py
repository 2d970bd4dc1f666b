"""Questions of other images, asked of an image that does not answer them. Pure, and no model is asked.

Of the matches that ``write.swapped`` draws, each takes the plain question of another image of the same task type and
image shard, and an answer that says that the image does not show what is asked about. Which image is drawn by
rendezvous hashing: the one with the smallest draw, so that an image that joins the shard moves few. Judges tell whether
the image answers the question after all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from taskgalaxy_ops.hashing import draw
from taskgalaxy_ops.records import ImageId, Pair, Reason, Reject, Relevant, TaskTypePath, pair_id
from taskgalaxy_ops.text import normal_question

VERSION = 1  # one more whenever the same matches and questions give other pairs
OF, MADE = "plain", "unanswerable"  # the form whose questions are taken, and that of the pairs

WORDINGS = (
    "The image does not show what is asked about, so this cannot be answered.",
    "This cannot be answered: the image does not show what is asked about.",
    "That is not in the image: it does not show what is asked about.",
    "What is asked about cannot be found here, since the image does not show it.",
)

Place = tuple[ImageId, TaskTypePath]


@dataclass(frozen=True, slots=True)
class Swapped:
    """The matches that are drawn = pairs + rejects + pending."""

    pairs: list[Pair] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    pending: list[Place] = field(default_factory=list)

    @property
    def drawn(self) -> int:
        return len(self.pairs) + len(self.rejects) + len(self.pending)


def swapped(rows: Sequence[Relevant], pairs: Iterable[Pair], pending: Collection[Place], share: float) -> Swapped:
    """Pairs and rejects of the matches that are drawn, in the order of ``rows``: an image shard's relevant matches.

    pairs: the plain ones. pending: the matches whose plain question is not written yet; who would take it waits.
    """
    asked = {(pair.image, pair.task_type): pair.question for pair in pairs}
    images: defaultdict[TaskTypePath, list[ImageId]] = defaultdict(list)
    for row in rows:
        images[row.task_type].append(row.image)
    result = Swapped()
    for row in rows:
        if draw("swapped", row.image, row.task_type) >= share:
            continue
        own = normal_question(asked.get((row.image, row.task_type), ""))
        others = (image for image in images[row.task_type] if image != row.image)
        near = sorted(others, key=lambda other: (draw("swap", row.image, row.task_type, other), other))
        for other in ((image, row.task_type) for image in near):
            if other in pending:
                result.pending.append((row.image, row.task_type))
                break
            if other in asked and normal_question(asked[other]) != own:
                result.pairs.append(_pair(row, asked[other]))
                break
        else:
            detail = "no other image of the shard has another question of the task type"
            result.rejects.append(Reject("write", row.image, row.task_type, Reason.DECLINED, detail, MADE))
    return result


def _pair(row: Relevant, question: str) -> Pair:
    answer = WORDINGS[int(draw("swapped answer", row.image, row.task_type) * len(WORDINGS))]
    identity = pair_id(row.image, row.task_type, MADE, question, answer, None)
    return Pair(identity, row.image, row.task_type, MADE, question, answer)
