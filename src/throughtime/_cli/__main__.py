"""Starts the command: `python -m throughtime._cli`."""

from throughtime._cli.commands import app

if __name__ == "__main__":
    app()
