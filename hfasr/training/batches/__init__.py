"""Rows -> batches of equal padded seconds -> tensors."""
