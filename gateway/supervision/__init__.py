"""What a supervisor keeps a node running with: sockets, children, and who takes whose place."""
