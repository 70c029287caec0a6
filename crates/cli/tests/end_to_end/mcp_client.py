"""Drives a server by the official SDK of the Model Context Protocol, and prints what it said as one line of JSON.

usage: mcp_client.py MODE http URL | mcp_client.py MODE stdio COMMAND [ARGUMENT…]

MODE is `legacy` (with the handshake of revision 2025-11-25) or a revision without one. The calls come on standard input, as a JSON list
of [tool, arguments]; a tool called `resource` reads the resource of that address.
"""

import asyncio
import json
import sys

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters


async def answered(client, tool, arguments):
    try:
        if tool == "resource":
            read = await client.read_resource(arguments)
            return {"text": read.contents[0].text}
        result = await client.call_tool(tool, arguments)
        return {"is_error": bool(result.is_error), "output": result.structured_content}
    except MCPError as error:
        return {"protocol_error": str(error)}


async def main():
    mode, transport, *rest = sys.argv[1:]
    calls = json.load(sys.stdin)
    server = rest[0] if transport == "http" else StdioServerParameters(command=rest[0], args=rest[1:])
    async with Client(server, mode=mode, read_timeout_seconds=60) as client:
        tools = (await client.list_tools()).tools
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        print(
            json.dumps(
                {
                    "version": client.protocol_version,
                    "tools": {tool.name: tool.annotations.model_dump() for tool in tools},
                    "resources": [str(resource.uri) for resource in resources],
                    "templates": [template.uri_template for template in templates],
                    "answers": [await answered(client, tool, arguments) for tool, arguments in calls],
                }
            )
        )


asyncio.run(main())
