// Node's own server and nothing else: what a connection costs at the least.
import { createServer } from 'node:http'

const server = createServer((_request, response) => response.end('{"hello":"world"}'))
server.keepAliveTimeout = 75_000
server.listen(Number(process.env.PORT), '127.0.0.1')
