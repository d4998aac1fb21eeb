"""Bytes that every protocol meets: headers, content codings, event streams, one value of a JSON text."""
