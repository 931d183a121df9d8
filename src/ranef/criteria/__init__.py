"""Floor 5: what ranks models that are not nested, and how much of the data they explain."""
