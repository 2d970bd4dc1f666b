"""What people read: lines in a terminal, and HTML pages."""
