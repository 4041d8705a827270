"""Files on disk or on the Hub -> rows."""
