"""`report`: everything that a capture shows, as one page to send."""

from throughtime._report.sections import report as report
