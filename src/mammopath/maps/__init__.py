"""Maps: where a network looked, as values with units and as pictures."""
