"""The rooms of stage 04: from features to clusters."""
