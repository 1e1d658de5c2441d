"""make_start_network.py: pictures that any machine can have, a teacher, and the network that learns from both."""
