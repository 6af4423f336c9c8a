"""Hugging Face's Trainer, brought back by nodewatch: python huggingface_trainer.py DIRECTORY [STEPS]. Needs accelerate too."""

import sys

import torch
from nodewatch_train.foreign import newest, transformers_callback
from nodewatch_train.signals import EXIT_STOPPED, leave
from torch import nn
from transformers import Trainer, TrainingArguments


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.linear(x).squeeze(1) - labels).square().mean()}


def main() -> None:
    directory, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 40
    numbers = torch.randn(400, 8, generator=torch.Generator().manual_seed(1))
    rows = [{"x": row, "labels": row.sum()} for row in numbers]
    arguments = TrainingArguments(
        directory,
        max_steps=steps,
        save_steps=10,
        logging_steps=5,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        seed=0,
    )
    callback = transformers_callback(directory)
    torch.manual_seed(0)
    trainer = Trainer(model=Regression(), args=arguments, train_dataset=rows, callbacks=[callback])
    trainer.train(resume_from_checkpoint=newest(directory, driver="huggingface"))
    leave(EXIT_STOPPED if callback.stopped else 0)


if __name__ == "__main__":
    main()
