"""Before an experiment starts: how long it will take, and how often it would be wrong. Looks, never steers."""
