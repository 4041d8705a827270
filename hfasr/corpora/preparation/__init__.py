"""Rows -> sharded Parquet with 16 kHz FLAC."""
