"""Rows -> what is in them: figures, suspicious rows, a page."""
