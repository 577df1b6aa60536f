/**
 * Node's `http` module, without `import`: an import evaluates all exports, and the getters of `WebSocket` and `CloseEvent`
 * load Node's own copy of undici, which costs 16 MB and 40 ms of CPU and is not needed.
 */
export const http = process.getBuiltinModule('node:http')

export const { createServer, IncomingMessage, METHODS, ServerResponse, STATUS_CODES } = http
