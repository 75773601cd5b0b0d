"""What happens when a step is not finite: the culprit is named, and the run stops or goes on."""

import logging
from pathlib import Path

from d2pd.d2 import CfgNode, MetadataCatalog, comm
from d2pd.errors import UserError
from d2pd.training.culprits.culprit import (
    CALM,
    DATA,
    VERDICTS,
    WHOLE_BATCH,
    Scene,
    Verdict,
    Violation,
    isolate,
)
from d2pd.training.culprits.evidence import Evidence
from d2pd.training.culprits.sample_faults import TargetError

logger = logging.getLogger(__name__)

ABORT, SKIP = "abort", "skip"


class DivergedError(UserError, FloatingPointError):
    """A loss or a gradient is not finite; the message has the verdict and names the images."""


class Guard:
    """Names the culprit of a step that is not finite, and says whether the run goes on.

    Args:
        evidence: Writes what there is to look at; None writes nothing.
        policy: ``abort`` ends the run; ``skip`` leaves the step out.
        budget: Steps of a run that may be left out.
    """

    def __init__(
        self, evidence: Evidence | None = None, *, policy: str = ABORT, budget: int = 0
    ) -> None:
        self.evidence = evidence
        self.policy = policy
        self.budget = budget
        self.skipped = 0

    @property
    def may_skip(self) -> bool:
        """Whether a step may be left out, so that it has to be possible to go back before it."""
        return self.policy == SKIP

    def settle(self, violation: Violation | None, scene: Scene) -> None:
        """Find the culprit and write the evidence; return if the step is to be left out.

        Every process calls this at the same time; all of them return, or raise.

        Args:
            violation: Of this process; None if only another one has any.
            scene: The training as it was before the step.

        Raises:
            TargetError: If labels or pixels are to blame, under ``abort`` or beyond the budget.
            DivergedError: If anything else is.
        """
        verdict = None if violation is None else _isolate(violation, scene)
        kinds = {kind for kind in comm.all_gather(verdict and verdict.kind) if kind}
        # A gradient is the mean over all processes: only one of them may hold the culprit.
        blamed = min(kinds, key=VERDICTS.index)
        own = None
        if violation is not None and verdict is not None and verdict.kind == blamed:
            own = self._tell(violation, verdict, scene)
        told = [text for text in comm.all_gather(own) if text]
        text = f"iteration {scene.iteration}: {'; '.join(told)}"
        if self.may_skip and self.skipped < self.budget:
            self.skipped += 1
            logger.warning("%s. Skipped (%d of %d)", text, self.skipped, self.budget)
            return
        if self.may_skip:
            text += f"; NON_FINITE.BUDGET is used up: {self.skipped} steps were skipped"
        raise TargetError(text) if blamed == DATA else DivergedError(text)

    def _tell(self, violation: Violation, verdict: Verdict, scene: Scene) -> str:
        """Write the evidence and return the line that says it all."""
        text = f"{violation.text}; verdict: {verdict.kind}: {verdict.reason}"
        rank, path = comm.get_rank(), None
        if self.evidence is not None:
            path = self.evidence.write(violation, verdict, scene, rank=rank, text=text)
        on_rank = f"rank {rank}: " if comm.get_world_size() > 1 else ""
        seen = f"; see {path}" if path else ""
        return f"{on_rank}{text}; {verdict.way_out}{seen}"


def _isolate(violation: Violation, scene: Scene) -> Verdict:
    try:
        return isolate(violation, scene)
    except Exception as error:  # the other processes wait: whatever it is, they must hear of it
        logger.warning("the culprit could not be isolated", exc_info=True)
        named = ", ".join(str(suspect) for suspect in violation.suspects)
        reason = f"isolating the culprit failed ({type(error).__name__}: {error}); images: {named}"
        return Verdict(WHOLE_BATCH, " ".join(reason.split()), CALM, violation.suspects)


def build_guard(cfg: CfgNode) -> Guard:
    """Read ``NON_FINITE``; the evidence goes to ``OUTPUT_DIR/non_finite``."""
    names = cfg.DATASETS.TRAIN
    evidence = Evidence(
        folder=Path(cfg.OUTPUT_DIR) / "non_finite",
        class_names=tuple(MetadataCatalog.get(names[0]).get("thing_classes") or ())
        if names
        else (),
        image_format=cfg.INPUT.FORMAT,
        config_text=cfg.dump(),
    )
    return Guard(evidence, policy=cfg.NON_FINITE.POLICY, budget=cfg.NON_FINITE.BUDGET)
