"""What is read from answers: predictions that are scored, numbers that are measured."""
