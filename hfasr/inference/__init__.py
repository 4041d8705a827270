"""Inference: a checkpoint -> transcripts."""
