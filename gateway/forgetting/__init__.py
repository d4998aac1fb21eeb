"""What is not kept for ever: units that ask to be forgotten, and requests that have had their time."""
