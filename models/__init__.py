"""Language models as plain modules: families, sizes, generation."""
