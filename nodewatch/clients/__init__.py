"""The only importers of what belongs to others: Slurm's commands, boto3, libmunge. Errors are translated here."""
