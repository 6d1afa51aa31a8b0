"""Pages of a capture or a run: `report` is a file to send, `live` is served and follows a run."""
