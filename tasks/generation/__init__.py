"""Asking models: requests, the durable engine that sends them, and the servers that answer."""
