"""Floor 5: what follows from a fit - tables, degrees of freedom, intervals, refits."""
