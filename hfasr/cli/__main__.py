"""`python -m hfasr.cli <verb>`."""

from hfasr.cli import main

main()
