/** Opens the ports. If one cannot be opened, the error names the key of the configuration and how to change it. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { faultAt, variableOf } from '../../config/place.ts'
import type { Address } from './listener.ts'

/** By error code: the key to change, the cause, and advice. */
const causes: Readonly<Record<string, readonly [key: keyof Address, cause: string, advice: string]>> = {
  EADDRINUSE: ['port', 'the address is in use', 'stop the program that listens there, or '],
  EACCES: [
    'port',
    'the process has no permission for this port',
    'grant the permission, which ports below 1024 need, or '
  ],
  EADDRNOTAVAIL: ['host', 'no network interface of this machine has this address', ''],
  ENOTFOUND: ['host', 'the host name does not exist', ''],
  EAI_AGAIN: ['host', 'the host name cannot be resolved now', '']
}

/** The same for a Unix socket. */
const ofSockets: typeof causes = {
  EADDRINUSE: ['path', 'the file is not a socket, or a process listens on it', 'stop that process, or '],
  EACCES: ['path', 'the process has no permission to write to the folder', 'grant the permission, or '],
  ENOENT: ['path', 'the folder does not exist', 'create it, or '],
  ENOTDIR: ['path', 'a part of the path is not a folder', '']
}

/** Listens on the address at a pointer, such as `/listen` or `/admin`. */
export async function listenOn(
  server: { listen(address: Address): Promise<unknown> },
  file: string,
  at: string,
  to: Address
): Promise<void> {
  const { host, port, path } = to
  try {
    await server.listen(to)
  } catch (error) {
    const { code: reported = '', syscall = '' } = error as NodeJS.ErrnoException
    // libuv reports a missing folder of a Unix socket as EACCES.
    const code = reported === 'EACCES' && path !== undefined && !existsSync(dirname(path)) ? 'ENOENT' : reported
    const known = (path === undefined ? causes : ofSockets)[code]
    // Errors of `onListen` hooks and of plugins end up here, too.
    if (known === undefined || (syscall !== 'listen' && syscall !== 'getaddrinfo')) throw error
    const [key, cause, advice] = known
    const address = path ?? `${host.includes(':') ? `[${host}]` : host}:${port}`
    throw faultAt(
      file,
      `${at}/${key}`,
      (place) => {
        const variable = variableOf(place)
        const change = variable === undefined ? `set another ${key} here` : `set ${variable} to another ${key}`
        return `cannot listen on ${address}: ${cause} (${code}); ${advice}${change}`
      },
      error
    )
  }
}
