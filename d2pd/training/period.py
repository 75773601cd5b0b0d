"""What comes every so many iterations."""


def is_due(iteration: int, period: int, max_iter: int) -> bool:
    """Tell whether something that comes every ``period`` iterations, and last, comes now.

    Args:
        iteration: Just done, from 0.
        period: 0 for after the last iteration only.
        max_iter: Number of iterations of the whole run.
    """
    done = iteration + 1
    return done >= max_iter or (period > 0 and done % period == 0)
