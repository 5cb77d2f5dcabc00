"""The search server and the MCP server: a retriever for programs, for people and for other models."""
