"""HTTP: the bridge for programs without NATS, the pages for operators, and what serves both."""
