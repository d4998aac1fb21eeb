"""How a request of each protocol is put to a variant, and what of its answer the client sees."""
