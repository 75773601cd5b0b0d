"""A progress bar for a person at a terminal."""

import sys

from tqdm import tqdm

from d2pd.d2 import HookBase


class ProgressBar(HookBase):
    """A bar with rate, remaining time and loss while a person watches; silent in a log file.

    The lines of ``run.log`` carry the remaining time there.
    """

    def before_train(self) -> None:
        """Open the bar where the run stands."""
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            desc="train",
            unit="it",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def after_step(self) -> None:
        """Move on to what is done; show the loss now and then."""
        self._bar.update(self.trainer.iter + 1 - self._bar.n)
        if self.trainer.iter % 10 == 0:
            loss = self.trainer.storage.latest().get("total_loss")
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss[0]:.3f}")

    def after_train(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
