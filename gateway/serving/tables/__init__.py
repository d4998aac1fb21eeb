"""From a plan to what a worker serves from, and from one plan to the next."""
