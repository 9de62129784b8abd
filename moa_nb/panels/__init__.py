"""What people read: pure functions from the record of a run to HTML, Markdown and plain text."""
