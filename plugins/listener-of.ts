/**
 * Names of the listeners to which requests and connections belong. A server carries the name of its listener. If there are
 * several listeners, each request carries the name, too, since a closed socket no longer refers to its server.
 */
import type { Server } from 'node:net'

const NAME = Symbol('jingwei.listener')
const ALL = Symbol('jingwei.listeners')

/** A listening server with its name. */
export interface Listening {
  readonly name: string
  readonly server: Server
}

/** Sets the listener name of a server or a request. */
export function markListener(of: object, name: string): void {
  Reflect.set(of, NAME, name)
}

/** Returns the listener name of a server or request; undefined if the gateway did not create the server. */
export function listenerNameOf(of: object | undefined): string | undefined {
  return of === undefined ? undefined : (Reflect.get(of, NAME) as string | undefined)
}

/** Returns the name of the listener that accepted a connection. */
export function listenerOfSocket(socket: object): string | undefined {
  return listenerNameOf((socket as { server?: object | null }).server ?? undefined)
}

/** Sets the listening servers that a facade stands for. */
export function standFor(server: Server, all: readonly Listening[]): void {
  Reflect.set(server, ALL, all)
}

/** Returns the listening servers that a facade stands for; for a listening server, the server itself. */
export function listeningOf(server: Server): readonly Listening[] {
  const all = Reflect.get(server, ALL) as readonly Listening[] | undefined
  return all ?? [{ name: listenerNameOf(server) ?? 'default', server }]
}
