"""One file per data set, each an index(root) that lists Records."""
