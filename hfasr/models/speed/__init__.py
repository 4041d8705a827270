"""A training step as fast as the device allows, and what it does."""
