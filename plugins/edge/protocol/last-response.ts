import type { IncomingMessage } from 'node:http'

const afterLast = Symbol('jingwei.afterLastResponse')

/** Returns whether a request came after the last response of its connection, so that it must not be processed (RFC 9112, 9.6). */
export function isAfterLastResponse(raw: IncomingMessage): boolean {
  return (raw.socket as { [afterLast]?: true })[afterLast] === true
}

/** Marks the response to a request as the last one of its connection. HTTP/2 requests do not depend on each other. */
export function markLastResponse(raw: IncomingMessage): void {
  if (!('stream' in raw)) Object.assign(raw.socket, { [afterLast]: true })
}
