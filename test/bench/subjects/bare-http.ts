// A bare node:http server: the minimum cost of a connection.
import { createServer } from 'node:http'

const server = createServer((_request, response) => response.end('{"hello":"world"}'))
server.keepAliveTimeout = 75_000
server.listen(Number(process.env.PORT), '127.0.0.1')
