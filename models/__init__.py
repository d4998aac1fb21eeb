"""Real models, trained on public data, for running the gateway end to end."""
