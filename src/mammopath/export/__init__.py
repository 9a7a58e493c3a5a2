"""What leaves for other programs and people: files in formats that they read."""
