"""Transcript to target to label ids: normalising, phonemizing, tokenizers."""
