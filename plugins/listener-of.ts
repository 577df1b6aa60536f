/**
 * Which listener a request, a connection or a refusal belongs to. A server carries the name of its listener; where the
 * process has several, each request does too, since the server of its connection is not known for as long as the request is.
 */
import type { Server } from 'node:net'

const NAME = Symbol('jingwei.listener')
const ALL = Symbol('jingwei.listeners')

/** A listening server with its name. */
export interface Listening {
  readonly name: string
  readonly server: Server
}

/** Names a server, or marks a request of its. */
export function markListener(of: object, name: string): void {
  Reflect.set(of, NAME, name)
}

/** Returns the name that a server or request was given; undefined for one of somebody else's. */
export function listenerNameOf(of: object | undefined): string | undefined {
  return of === undefined ? undefined : (Reflect.get(of, NAME) as string | undefined)
}

/** Returns the name of the listener that a connection came to. */
export function listenerOfSocket(socket: object): string | undefined {
  return listenerNameOf((socket as { server?: object | null }).server ?? undefined)
}

/** Says which servers another one stands for. */
export function standFor(server: Server, all: readonly Listening[]): void {
  Reflect.set(server, ALL, all)
}

/** Returns the servers that one stands for; itself, if it listens. */
export function listeningOf(server: Server): readonly Listening[] {
  const all = Reflect.get(server, ALL) as readonly Listening[] | undefined
  return all ?? [{ name: listenerNameOf(server) ?? 'default', server }]
}
