"""The tunnel between an agent and the cloud: its pure core, its asyncio shell, and the operator's tool."""
