"""What the doctor says: findings, and the report made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        topic: What was looked at, such as ``torch``.
        status: ``broken`` keeps d2pd from running; ``note`` does not, but is worth a look.
        detail: What was found.
        cure: The command lines that mend it; empty where nothing needs mending.
    """

    topic: str
    status: Status
    detail: str
    cure: str = ""


def can_run(findings: Sequence[Finding]) -> bool:
    """Tell whether d2pd can run: nothing is broken."""
    return all(finding.status != "broken" for finding in findings)


def report(findings: Sequence[Finding]) -> str:
    """Lay the findings out as text: a line each, the cure indented below it, the verdict last."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<6}  {finding.topic:<{width}}  {finding.detail}")
        lines += [f"{'':<{width + 10}}$ {line}" for line in finding.cure.splitlines()]
    broken = [finding.topic for finding in findings if finding.status == "broken"]
    verdict = f"d2pd cannot run yet: {', '.join(broken)}" if broken else "d2pd can run here"
    return "\n".join([*lines, verdict])
