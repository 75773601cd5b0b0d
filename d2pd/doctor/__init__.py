"""``d2pd doctor``: what this machine has, what is missing, and the line that mends each.

Nothing heavy is imported here: torch, torchvision and OpenCV are asked in processes of their own,
so that a broken one, even one that crashes, ends in a finding and not in a traceback.
"""

from d2pd.doctor.checks import diagnose
from d2pd.doctor.finding import Finding, Status, can_run, report

__all__ = ["Finding", "Status", "can_run", "diagnose", "main", "report"]


def main() -> int:
    """Print the findings; return 0 when d2pd can run on this machine, else 1."""
    findings = diagnose()
    print(report(findings))
    return 0 if can_run(findings) else 1
