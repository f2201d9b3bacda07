"""Durable, paced sending: apps push messages into Redis, Paceline delivers them."""

__version__ = "0.1.0"
