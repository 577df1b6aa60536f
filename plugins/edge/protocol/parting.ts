import type { IncomingMessage } from 'node:http'

const parted = Symbol('jingwei.parted')

/** Whether the connection has had its last answer: later requests on it must not be processed (RFC 9112, 9.6). */
export function isParted(raw: IncomingMessage): boolean {
  return (raw.socket as { [parted]?: true })[parted] === true
}

/** Lets no later request on the connection be processed. */
export function part(raw: IncomingMessage): void {
  // Of HTTP/2 each request stands for itself.
  if (!('stream' in raw)) Object.assign(raw.socket, { [parted]: true })
}
