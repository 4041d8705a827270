"""References and hypotheses to numbers and pages a person can act on."""
