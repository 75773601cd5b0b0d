"""How far a run came, and why not further."""

from pathlib import Path

from d2pd.reporting.report.training import History

FINAL_FILES = ("results.json", "model_final.pth")


def run_status(output_dir: Path, history: History, max_iter: int) -> tuple[str, str]:
    """Tell how a run ended, from what it left.

    Args:
        output_dir: Of the run.
        history: Its numbers.
        max_iter: Iterations that it was to take.

    Returns:
        ``finished``, ``stopped early``, ``unfinished`` or ``evaluated``, and a sentence.
    """
    last = history.last_iteration()
    is_final = any((output_dir / name).is_file() for name in FINAL_FILES)
    if history.stop is not None:
        iteration, reason = history.stop
        return (
            "stopped early",
            f"Stopped after iteration {iteration:,} of {max_iter:,}: {reason}.",
        )
    if last is None and not is_final:
        return (
            "evaluated",
            "No training is recorded in this folder, only evaluations of a model, if any.",
        )
    if is_final:
        return "finished", f"Trained to the end, {max_iter:,} iterations."
    done = f"the last numbers are of iteration {last:,} of {max_iter:,}"
    return (
        "unfinished",
        f"Still running or interrupted: {done}. If nothing runs any more, python train_net.py "
        f"--config-file {output_dir / 'config.yaml'} --resume goes on from the newest checkpoint.",
    )
