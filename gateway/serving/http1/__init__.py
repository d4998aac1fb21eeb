"""HTTP/1.1 as the data port speaks it, in the place of uvicorn's own protocol."""
