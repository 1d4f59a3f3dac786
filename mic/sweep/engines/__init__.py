"""Other engines for the same sweep file: W&B agents and SLURM array jobs."""
