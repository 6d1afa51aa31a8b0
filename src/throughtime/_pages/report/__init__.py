"""`report`: everything that a capture shows, as one page to send."""

from throughtime._pages.report.sections import report as report
