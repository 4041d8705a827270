"""Logits to tokens with frames."""
