"""The explorer over HTTP: who may ask, how requests are read, and the endpoints of the protocol."""
