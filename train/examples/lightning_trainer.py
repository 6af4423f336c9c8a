"""Lightning's Trainer, brought back by nodewatch: python lightning_trainer.py DIRECTORY [STEPS]. Needs lightning."""

import sys
from typing import Any

import lightning
import torch
from nodewatch_train.foreign import lightning_callback, newest
from nodewatch_train.signals import EXIT_STOPPED, leave
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        [x] = batch
        return (self.linear(x) - x.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def main() -> None:
    directory, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40
    torch.manual_seed(0)
    numbers = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    callback = lightning_callback(directory, every=10)
    trainer = lightning.Trainer(
        max_steps=steps,
        callbacks=[callback],
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    loader = DataLoader(TensorDataset(numbers), batch_size=4)
    trainer.fit(Regression(), loader, ckpt_path=newest(directory, driver="lightning"))
    leave(EXIT_STOPPED if callback.stopped else 0)


if __name__ == "__main__":
    main()
