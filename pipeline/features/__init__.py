"""Stages 02 and 03: from a cleaned photograph to its features, and how the network learns them."""
