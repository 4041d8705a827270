"""Recordings of any length, and live ones -> what is heard in them, in constant memory."""
