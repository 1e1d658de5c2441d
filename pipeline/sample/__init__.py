"""A drawn catalogue of shoes and bags, photographed as sellers do it."""
