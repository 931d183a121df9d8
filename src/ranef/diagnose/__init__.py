"""Floor 5: what a fit says about itself - residuals, boundary, messages."""
