"""The training side of nodewatch: checkpoints that can be trusted, stopping on request, and a record of progress.

Nothing is imported here: the commit protocol (`manifest`) and the progress record (`progress`) need the standard
library alone, and a program that only verifies a checkpoint must not pay for torch.
"""
