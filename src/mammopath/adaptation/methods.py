"""The table of methods: what each moves, how it steps, and what head it leaves."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mammopath.adaptation import heads, updates
from mammopath.adaptation.descent import Descent
from mammopath.adaptation.movable import Moves
from mammopath.adaptation.values import Head, Seen, State, Stepped, Task
from mammopath.settings import AdaptSettings

SGD, ADAM = Descent("sgd", 1e-3), Descent("adam", 1e-4)


@dataclass(frozen=True)
class Adaptation:
    """One method.

    Attributes:
        step: from a state and a batch to the next state.
        moves: which weights; ``nothing`` where only the head changes.
        fold: the head that a state leaves in the network.
        descent: optimiser and learning rate, where settings give none.
        needs_views: cases must come with style-only views.
        needs_fisher: the source's Fisher information is taken on its probe.
        needs_hidden: cases must come with a view whose middle is hidden, or blocks above the cut see to it.
        chooses: only cases of little entropy are learned from.
        adapts: false for the source itself.
    """

    step: Callable[[Task, State, Seen], Stepped]
    moves: Moves = "nothing"
    fold: Callable[[Task, State], Head] = heads.source_head
    descent: Descent = SGD
    needs_views: bool = False
    needs_fisher: bool = False
    needs_hidden: bool = False
    chooses: bool = False
    adapts: bool = True

    def rule(self, settings: AdaptSettings) -> Descent:
        """How to step under these settings."""
        return replace(self.descent, lr=settings.lr or self.descent.lr)


ADAPTATIONS: dict[str, Adaptation] = {
    "none": Adaptation(heads.nothing, adapts=False),
    "style": Adaptation(updates.style, "style", descent=ADAM),
    "tact": Adaptation(heads.trim_batch, fold=heads.trimmed_fold, needs_views=True),
    "tact_adapt": Adaptation(updates.tact_adapt, "body", descent=ADAM, needs_views=True),
    "tent": Adaptation(updates.tent, "norms"),
    "eata": Adaptation(updates.eata, "norms", needs_fisher=True, chooses=True),
    "sar": Adaptation(updates.sar, "lower norms", chooses=True),
    "deyo": Adaptation(updates.deyo, "lower norms", needs_hidden=True, chooses=True),
    "t3a": Adaptation(heads.support_batch, fold=heads.prototype_fold),
    "shot_im": Adaptation(updates.shot_im, "body", descent=ADAM),
}
"""Test-time adaptations by name."""
