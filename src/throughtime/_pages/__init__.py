"""Pages: `report` writes a file of a capture or a run, `live` serves a page that follows a run."""
