"""The simulated judges: each looks for itself and says whether a question and its answer are right for an image.

They share the questions' text with the teacher (``templates``) and the neural networks, nothing of what it found: each
reads the text in its own rendering of the image, names colours, finds shapes and measures light in its own way, and
answers the question anew before it compares.
"""

from __future__ import annotations

from taskgalaxy_ops.simulator.judges.checking import check
from taskgalaxy_ops.simulator.judges.conversations import check_later
from taskgalaxy_ops.simulator.judges.finding import Finding
from taskgalaxy_ops.simulator.judges.many import check_several
from taskgalaxy_ops.simulator.judges.views import JUDGES

__all__ = ["JUDGES", "Finding", "check", "check_later", "check_several"]
