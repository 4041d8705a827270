"""The embedded corpora: sentences of the project's own, spoken by espeak-ng."""
