"""How far a pipeline's pixels are from the reference's."""
