"""What is told of a study, from its folder alone: no model is loaded."""
