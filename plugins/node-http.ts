/**
 * Node's `http` module. Not by `import`, which reads all that the module exports: its `WebSocket` and `CloseEvent` load
 * Node's own copy of undici, 16 MB and 40 ms of CPU that nothing here needs.
 */
export const http = process.getBuiltinModule('node:http')

export const { createServer, IncomingMessage, METHODS, ServerResponse, STATUS_CODES } = http
