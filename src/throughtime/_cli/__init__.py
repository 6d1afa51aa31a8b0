"""The command `throughtime`: reads runs on disk, from a shell."""

from throughtime._cli import sweeping as sweeping
from throughtime._cli.commands import app as app
