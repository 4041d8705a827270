"""Paths that a user names -> a folder of transcripts."""
