"""MCP over streamable HTTP, and what a service is asked about itself."""
