"""The rooms of stage 01: where the product of a photograph is, and the product on white."""
