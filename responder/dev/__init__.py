"""Real servers and demo people, for `responder dev` and for the tests."""
