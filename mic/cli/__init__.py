"""The command line: one file a command, its parser beside its function.

Nothing heavy is imported before the command that needs it runs: torch takes ten seconds.
"""
