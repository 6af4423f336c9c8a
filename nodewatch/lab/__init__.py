"""The rehearsal cluster: real Slurm and systemd on one machine, EC2 played by moto, faulty hardware on demand."""
