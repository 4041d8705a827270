"""Rows to a checkpoint."""
