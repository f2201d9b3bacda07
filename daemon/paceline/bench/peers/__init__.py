"""What Paceline is measured beside. Each file is a program of its own (``python -m``), which prints
its figures as one JSON line; nothing of the service imports them."""
