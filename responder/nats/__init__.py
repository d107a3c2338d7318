"""NATS: a connection that loses nothing, and what a service says of itself."""
