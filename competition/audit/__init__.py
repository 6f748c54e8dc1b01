"""What `data` prints, and what tells train from test rows."""
