"""What is kept of a step that was not finite: JSON, picture and a file to run it again."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from d2pd.atomic_file import atomic_file, partial_path
from d2pd.json_file import strict, write_json
from d2pd.reporting.suspects import draw_suspects
from d2pd.training.culprits.culprit import Scene, Suspect, Verdict, Violation
from d2pd.training.culprits.recorded_step import write_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evidence:
    """Where and how the evidence is written.

    Attributes:
        folder: Made when there is something to write.
        class_names: In the order of the class ids.
        image_format: Order of the visible channels of images: ``BGR`` or ``RGB``.
        config_text: The configuration as YAML, which the file to run again holds.
    """

    folder: Path
    class_names: Sequence[str] = ()
    image_format: str = "BGR"
    config_text: str = ""

    def write(
        self, violation: Violation, verdict: Verdict, scene: Scene, *, rank: int, text: str
    ) -> Path | None:
        """Write ``iter_<iteration>_rank<rank>`` with the endings ``.json``, ``.png`` and ``.pt``.

        What cannot be written is logged: the run has another thing to say.

        Returns:
            The JSON file; None if it could not be written.
        """
        stem = f"iter_{scene.iteration:07d}_rank{rank}"

        def write_case(path: Path) -> None:
            case = case_as_json(violation, verdict, scene, rank=rank, text=text)
            write_json(path, case, indent=2)

        def write_picture(path: Path) -> None:
            partial = partial_path(path)
            heading = f"Iteration {scene.iteration}: {verdict.kind}"
            try:
                self._draw(violation, verdict, partial, heading)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

        def write_replay(path: Path) -> None:
            with atomic_file(path) as file:
                self._write_step(file, violation, scene, rank=rank, text=text)

        written = self._attempt(write_case, f"{stem}.json")
        self._attempt(write_picture, f"{stem}.png")
        self._attempt(write_replay, f"{stem}.pt")
        return written

    def _attempt(self, write: Callable[[Path], None], name: str) -> Path | None:
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path)
        except Exception as error:  # whatever it is, the verdict must be told
            logger.warning("cannot write %s: %s", path, error)
            return None
        return path

    def _draw(self, violation: Violation, verdict: Verdict, path: Path, heading: str) -> None:
        """Draw the blamed images first, then the others of the batch."""
        drawn = sorted(violation.suspects, key=lambda suspect: suspect not in verdict.blamed)
        position = {suspect.index: number for number, suspect in enumerate(drawn)}
        faults = [replace(fault, index=position[fault.index]) for fault in verdict.faults]
        samples = [suspect.sample for suspect in drawn]
        draw_suspects(samples, faults, self.class_names, path, self.image_format, heading)

    def _write_step(
        self, file: IO[bytes], violation: Violation, scene: Scene, *, rank: int, text: str
    ) -> None:
        write_step(file, violation, scene, rank=rank, text=text, config_text=self.config_text)


def case_as_json(
    violation: Violation, verdict: Verdict, scene: Scene, *, rank: int, text: str
) -> dict[str, Any]:
    """Return all that is known in JSON's own types; numbers that are not finite are strings."""
    name, largest = _largest_weight(scene)
    return strict(
        {
            "iteration": scene.iteration,
            "rank": rank,
            "verdict": verdict.kind,
            "text": text,
            "way_out": verdict.way_out,
            "seen_in": violation.where,
            "precision": scene.precision.name,
            "losses": violation.losses,
            "faults": [asdict(fault) for fault in verdict.faults],
            "parameters_not_finite": verdict.parameters,
            "largest_weight": {"name": name, "value": largest},
            "images": [
                _image(number, suspect, verdict)
                for number, suspect in enumerate(violation.suspects)
            ],
        }
    )


def _image(number: int, suspect: Suspect, verdict: Verdict) -> dict[str, Any]:
    sample = suspect.sample
    alone = verdict.alone[number] if verdict.alone else None
    return {
        "index": suspect.index,
        "row": sample.get("row"),
        "file_name": str(sample["file_name"]),
        "is_blamed": suspect in verdict.blamed,
        "boxes_xyxy": sample["instances"].gt_boxes.tensor.tolist(),
        "classes": sample["instances"].gt_classes.tolist(),
        "size": list(sample["image"].shape[-2:]),
        "seed": suspect.seed,
        "alone": None if alone is None else asdict(alone),
    } | {key: sample[key] for key in ("lwir_file_name",) if key in sample}


def _largest_weight(scene: Scene) -> tuple[str, float]:
    sizes = [
        (float(p.detach().abs().max()), name)
        for name, p in scene.model.named_parameters()
        if p.numel() and bool(torch.isfinite(p.detach()).all())
    ]
    size, name = max(sizes, default=(0.0, ""))
    return name, size
