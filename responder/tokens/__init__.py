"""JSON Web Tokens: whose they are, with keys that are kept fresh."""
