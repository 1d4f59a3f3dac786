"""`python -m mic.cli`."""

from mic.cli.main import entry

if __name__ == "__main__":
    entry()
