"""How well clusters agree with the true models, and how well they stand apart without labels."""
