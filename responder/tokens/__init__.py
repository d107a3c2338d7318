"""JSON Web Tokens (RFC 7519) become identities, verified with keys that are kept fresh."""
