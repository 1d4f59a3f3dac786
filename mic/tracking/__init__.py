"""Write a run's directory and logs, mirror them, and read runs back."""
