"""The way to an agent: transports, the handshake, requests and replies."""
