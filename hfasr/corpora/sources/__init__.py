"""One file per source; the function that loads it has the name of its file."""
